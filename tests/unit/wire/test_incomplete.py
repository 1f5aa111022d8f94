"""Half a request on a port, and what another client sends behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from qga.wire.decoder import Decoder
from qga.wire.protocol import Fault
from tests.differences import differs
from tests.unit.decoding import cut, descs_of, in_pieces, receive_all

WHOLE = (
    b'{"execute":"guest-exec","arguments":{"path":"/bin/gr\\u00fc\xc3\xb6","arg":["a",{"x":'
    b'[-1.5e+3,true,"{\\"execute\\":1}"]},"b"],"capture-output":true},"id":12}'
)
REVERSED = (
    b'{ "arguments": {"path": "/x", "arg": ["\xc3\xbc", null]}, "id": [{}],'
    b' "execute": "guest-exec"}'
)
PING = b'{"execute":"guest-ping"}'
SYNC = b'{"arguments":{"id":77},"execute":"guest-sync-delimited"}\n'
INFO = b'{"execute":"guest-info","arguments":{}}\n'
# What the next client sends, and what it is answered.
NEXT = {
    PING: ["guest-ping"],
    PING + b"\n": ["guest-ping"],
    b" \t" + PING + b"\r\n": ["guest-ping"],
    b'{ "execute" : "guest-ping" }\n': ["guest-ping"],
    b'{\n  "execute": "guest-ping"\n}\n': ["guest-ping"],
    SYNC + INFO: ["guest-sync-delimited", "guest-info"],
    SYNC.replace(b"\n", b"\r\n") + INFO.replace(b"\n", b"\r\n"): [
        "guest-sync-delimited",
        "guest-info",
    ],
}


class Port:
    """A decoder of a port, which counts the halves that it has dropped."""

    def __init__(self) -> None:
        self.drops = 0
        self.decoder = Decoder(on_drop=self._count)

    def _count(self) -> None:
        self.drops += 1

    def receive(self, *pieces: bytes) -> list[str]:
        return [desc for piece in pieces for desc in descs_of(self.decoder, piece)]


def ends_in_number(half: bytes) -> bool:
    """Whether it is cut where a number lacks a digit: a brace there is read with the number."""
    return re.search(rb"[0-9][.eE]$|[eE]?[-+]$", half) is not None


def takes_object(half: bytes) -> bool:
    """Whether a request would be a part of the value: a client that sends both at once may mean
    that."""
    depth = []
    for byte in re.sub(rb'"(?:\\.|[^"\\])*"', b'""', half):
        if byte in b"[{":
            depth.append(byte)
        elif byte in b"]}":
            depth.pop()
    return half.rstrip().endswith((b":", b"[")) or (
        half.rstrip().endswith(b",") and depth[-1:] == [ord("[")]
    )


@differs("half-request")
@pytest.mark.parametrize("sent", NEXT)
@pytest.mark.parametrize("whole", [WHOLE, REVERSED])
def test_the_next_client_is_answered_wherever_a_request_was_cut(whole: bytes, sent: bytes) -> None:
    for length in range(1, len(whole)):
        half = whole[:length]
        if takes_object(half) and not sent.endswith(b"\n"):
            continue
        port = Port()
        assert (port.receive(half, sent), port.drops) == (NEXT[sent], 1), half
        assert port.receive(PING) == ["guest-ping"]


@pytest.mark.parametrize("whole", [WHOLE, REVERSED])
def test_the_split_of_the_bytes_does_not_matter(whole: bytes) -> None:
    for length in range(1, len(whole)):
        half = whole[:length]
        if takes_object(half) or ends_in_number(half):
            continue
        for pieces in ([half + SYNC + INFO], in_pieces(half + SYNC + INFO, 1)):
            port = Port()
            expected = ["guest-sync-delimited", "guest-info"]
            assert (port.receive(*pieces), port.drops) == (expected, 1), half


def test_two_halves_in_a_row() -> None:
    for first in range(1, len(WHOLE), 3):
        for second in range(12, len(REVERSED), 5):
            port = Port()
            halves = (WHOLE[:first], WHOLE[:second])
            if not any(map(ends_in_number, halves)):
                assert port.receive(*halves, SYNC + INFO)[-2:] == [
                    "guest-sync-delimited",
                    "guest-info",
                ]


@pytest.mark.parametrize("half", [b'{"execute":"guest-exec","id":[1', b'{"a":"b', b"{'a':'b"])
def test_0xff_is_answered_as_usual(half: bytes) -> None:
    port = Port()
    answers = port.receive(half, b"\xff" + SYNC)
    assert answers[-1] == "guest-sync-delimited"
    assert answers == descs_of(Decoder(), half + b"\xff" + SYNC)
    assert port.drops == 0


def test_half_of_a_big_one() -> None:
    half = b'{"execute":"guest-file-write","arguments":{"handle":1,"buf-b64":"' + b"QUJD" * (
        15 << 20
    )
    port = Port()
    assert port.receive(*in_pieces(half, 1 << 16), SYNC + INFO) == [
        "guest-sync-delimited",
        "guest-info",
    ]
    assert not port.decoder.unfinished


@pytest.mark.parametrize("half", [WHOLE[:-1], b'{"a', b"[-", b"{'a':'b", b"$ "])
def test_a_reset_forgets_half_a_request(half: bytes) -> None:
    port = Port()
    port.receive(half)
    port.decoder.reset()
    assert (port.receive(PING), port.drops) == (["guest-ping"], 0)


def test_without_a_port_nothing_is_dropped() -> None:
    decoder = Decoder()
    assert descs_of(decoder, b'{"execute":"guest-exec","id":1') == []
    assert descs_of(decoder, PING + b"\n") == ["JSON parse error, expected ',' or '}'"]
    assert decoder.unfinished


@pytest.mark.parametrize(
    ("bad", "desc"),
    [
        (b'{"a":nope ', "invalid keyword 'nope'"),
        (b'["\\x"', "invalid escape sequence in string"),
        (b"[1 {", "expected ',' or ']'"),
        (b"[1 2", "expected ',' or ']'"),
    ],
)
def test_a_fault_that_may_be_half_a_request_is_reported_later(bad: bytes, desc: str) -> None:
    port = Port()
    assert port.receive(bad) == []
    assert port.receive(b" 1 2 3 ") == [f"JSON parse error, {desc}"]
    port = Port()
    assert port.receive(bad, PING + b"\n") == ["guest-ping"]
    assert port.drops == 1


@pytest.mark.parametrize("bad", [b"[1 2 3,4,5,{}", b'{"a" 1,"b":', b"[" * 1030, b"{,", b'{"a":1,,'])
def test_a_request_ends_what_is_swallowed(bad: bytes) -> None:
    port = Port()
    assert len(port.receive(bad)) == 1
    assert port.receive(PING + b"\n") == ["guest-ping"]


def same_as_on_a_socket(pieces: Sequence[bytes]) -> None:
    port = Port()
    assert receive_all(port.decoder, pieces) == receive_all(Decoder(), pieces)
    assert port.drops == 0


NESTED = [
    b'{"execute": "x", "arguments": {"steps": [\n  {"execute": "a"},\n  {"execute": "b"}\n]}}\n',
    b'{"execute": "x", "id": {"execute": "y"}}',
    b'{"execute": "guest-sync",\n "arguments":\n {"id": 1}\n}\n',
    b'{\r\n"arguments":\r\n{\r\n"id":\r\n1},"execute":"guest-sync"}\r\n',
    b'{"execute": "x", "arguments": {"text": "{\\"execute\\": \\"guest-ping\\"}\\n"}}\n',
    b'{"execute": \'{"execute": "guest-ping"}\'}\n',
    b'{"execute": "x", "arguments": {"text": "\\n{\'execute\': 1}"}}\n',
    b'{"execute": "{", "id": "{ "}',
    b'["execute", {"id": [{"execute": 1}, {"arguments": {"id": {}}}]}]',
]


@pytest.mark.parametrize("value", NESTED)
def test_values_that_hold_such_objects_are_read_whole(value: bytes) -> None:
    same_as_on_a_socket([value])
    same_as_on_a_socket(in_pieces(value, 1))
    for place in range(len(value)):
        same_as_on_a_socket(cut(value, [place]))


def test_a_request_of_another_client_behind_one_of_several_lines() -> None:
    port = Port()
    assert port.receive(NESTED[0], NESTED[0][:30], PING + b"\n") == ["x", "guest-ping"]


names = st.sampled_from(["execute", "arguments", "id", "a", "{", '{"execute":'])
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(names, st.integers(), st.none(), st.floats(allow_nan=False, allow_infinity=False)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@given(
    st.lists(values, min_size=1, max_size=3),
    st.sampled_from([None, 0, 1, "\t"]),
    st.lists(st.integers(0, 200), max_size=5),
)
def test_valid_json_is_never_taken_for_half_a_request(
    messages: list[Any], indent: Any, cuts: list[int]
) -> None:
    texts = [json.dumps([message], indent=indent).encode() for message in messages]
    same_as_on_a_socket(texts)
    pieces = cut(b"\n".join(texts), cuts)
    assume(not any(is_a_request(piece) for piece in pieces))
    same_as_on_a_socket(pieces)


def is_a_request(piece: bytes) -> bool:
    """Whether a piece is a request as a whole."""
    return [isinstance(event, Fault) for event in Decoder().receive(piece)] == [False]
