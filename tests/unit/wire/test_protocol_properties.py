"""What must hold of the decoder whatever arrives, and however it is cut."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qga.errors import QgaError
from qga.wire import decoder as wire_decoder
from qga.wire import fast, jsontext, jsonwriter, lexer, protocol, runs
from qga.wire.decoder import Decoder
from qga.wire.runs import Run, Runs
from tests.unit.decoding import PING, cut, descs_of, in_pieces, parse, receive_all, shown

EXAMPLES = settings(max_examples=100)

REQUESTS = [
    PING,
    PING + b"\n",
    b'{"execute":"guest-sync","arguments":{"id":12345}}',
    b"{'execute': 'guest-exec', 'arguments': {'path': '/bin/sh', 'arg': ['-c', \"it's\"]}}\n",
    b'{"execute":"x","arguments":{"a":[1,2.5,-3e-7,true,null,"\\u20ac\\ud83d\\ude00"]},"id":{}}',
    b'\xff{"execute":"guest-sync-delimited","arguments":{"id":1}}\n',
    '{"execute":"x","arguments":{"path":"/tmp/\u00e9\u20ac\U0001f600"}}\r\n'.encode(),
    b'[{"a":[[[]]]},"b\\\\",0,-0,0.0,1e5]',
]

# Bytes that mean something to the lexer, more often than by chance.
TELLING = [*(bytes([byte]) for byte in b"{}[],:\"'\\-019.eE+ \t\r\nat\0\x1f\x7f$")]
TELLING += [b"\x80", b"\xc0", b"\xc3\xa9", b"\xed\xa0\x80", b"\xfe", b"\xff", b"\\u", b"true"]
TELLING += [b"\\ud83d", b"\\ude00", b'"a":', b'"execute":"x"', b"{}", b" " * 100]


@st.composite
def mutated_requests(draw: st.DrawFn) -> bytes:
    """A few requests, with some bytes taken out, put in or replaced."""
    data = b"".join(draw(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=4)))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(data)))
        end = start + draw(st.integers(0, 3))
        data = data[:start] + draw(st.sampled_from([b"", *TELLING])) + data[end:]
    return data


noise = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from(TELLING), max_size=60).map(b"".join),
    mutated_requests(),
)
places = st.lists(st.integers(0, 400), max_size=12)


@given(noise, places)
@example(b"${}\n1 ", [1, 4])
@settings(EXAMPLES)
def test_any_cutting_gives_the_same_events(data: bytes, cuts: list[int]) -> None:
    whole = receive_all(Decoder(), [data])
    assert receive_all(Decoder(), cut(data, cuts)) == whole
    assert receive_all(Decoder(), in_pieces(data, 1)) == whole


@given(st.lists(noise, min_size=1, max_size=3).map(b"".join), places, st.integers(1, 5))
@example(b"\xff" * 20 + PING, [], 3)
@example(b"0 }", [], 1)
@example(PING * 9 + b"${}\n" * 9, [100], 2)
@settings(EXAMPLES)
def test_a_few_at_a_time_are_the_same_events(data: bytes, cuts: list[int], most: int) -> None:
    decoder, found = Decoder(), []
    for piece in cut(data, cuts):
        events = decoder.receive(piece, most)
        while decoder.rest:
            assert len(events) == most
            found += shown(events)
            events = decoder.go_on(most)
        assert len(events) <= most
        found += shown(events)
    assert found == receive_all(Decoder(), [data])


@given(st.lists(noise, min_size=1, max_size=3).map(b"".join), places, st.integers(1, 5))
@example(
    b'{"execute": "x", "arguments": {"list": [1, "a b", -2.5e1,  {"execute": true}]}}\n', [], 1
)
@settings(EXAMPLES)
def test_a_few_tokens_at_a_time_are_the_same_events(
    data: bytes, cuts: list[int], tokens: int
) -> None:
    decoder, found = Decoder(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire_decoder, "_MOST_AT_ONCE", tokens)
        for piece in cut(data, cuts):
            found += shown(decoder.receive(piece, 100))
            while decoder.rest:
                found += shown(decoder.go_on(100))
    assert found == receive_all(Decoder(), [data])


ITEMS = [
    b"1, ",
    b'"a b",',
    b"[1,{}],",
    b'{"a":1,"b":[]},',
    b"[],",
    b"-1.5,",
    b"1e400,",
    b'"\\x",',
    b"nope,",
]
ITEMS += [
    b'{"a":1,"a":2},',
    b"\n7,",
    b'"\xc3\xa9",',
    b"[[[]]],",
    b"1 2,",
    b",",
    b"$",
    b"18446744073709551616,",
]
ITEMS += [
    b'[[[["\\n", 1]]]],',
    b'{"a":{"b":[{}], "c":1}},',
    b"[" * 1030 + b"]" * 1030 + b",",
    b"[}],",
    b"{1},",
    b"true,",
    b"-0,",
    b"01,",
    b"'a',",
]


@st.composite
def long_messages(draw: st.DrawFn) -> bytes:
    """Lists and objects that are long enough for runs of items in them."""
    items = [each * draw(st.integers(1, 60)) for each in draw(st.lists(st.sampled_from(ITEMS)))]
    body = b"1," * 150 + b"".join(items)
    if draw(st.booleans()):
        return b'{"execute":"x","id":[' + body + b"1]}\n"
    members = b"".join(
        b'"%d":%s' % (number % draw(st.integers(90, 200)), item)
        for number, item in enumerate(re.split(rb"(?<=,)(?![^\[{]*[\]}])", body))
    )
    return b'{"execute":"x","id":{' + members + b'"last":1}}\n'


@given(long_messages(), places)
@settings(EXAMPLES)
def test_runs_of_items_change_no_event(data: bytes, cuts: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runs, "after", lambda *_: Run(None, 0, 0, 0))
        slowly = receive_all(Decoder(), in_pieces(data, 7))
    assert receive_all(Decoder(), cut(data, cuts)) == slowly
    assert receive_all(Decoder(), in_pieces(data, 700)) == slowly


@pytest.mark.parametrize(
    "item",
    [
        *(b"1,", b'"ab", ', b"[],", b"[1, 2],", b'{"a":1},', b'"k%d":1,', b'"k%d": [1, 2],'),
        *(b'"\\n\\"",', b"[[[[1]]]],", b'{"a":{"b":{"c":[]}}},', b'"k%d": [[[{}]]],'),
    ],
)
def test_a_large_message_is_read_in_runs(item: bytes) -> None:
    items = b"".join(item % n if b"%" in item else item for n in range(20_000))
    opener, closer = (b"{", b'"z":1}') if b"%" in item else (b"[", b"1]")
    taken = 0
    real = Runs.after

    def counting(*arguments: Any) -> Run:
        nonlocal taken
        run = real(*arguments)
        taken += run.tokens if run.content else 0
        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runs, "after", counting)
        data = b'{"execute":"x","id":' + opener + items + closer + b"}\n"
        decoder = Decoder()
        (event,) = (each for piece in in_pieces(data, 9000) for each in decoder.receive(piece))
    assert len(event.id) == 20_001
    assert taken > 0.97 * len(re.findall(rb'"(?:[^"\\]|\\.)*"|[0-9]+|[{}\[\],:]', items))


@pytest.mark.parametrize("data", [b"[", b"{", b'{"a":', b"}", b"tru ", b"\xff"])
@pytest.mark.parametrize("is_port", [False, True])
def test_only_so_many_tokens_are_looked_at_at_once(data: bytes, is_port: bool) -> None:
    decoder = Decoder(on_drop=(lambda: None) if is_port else None)
    decoder.receive(data * 20_000, 100)
    left = len(decoder.rest)
    assert left > len(data) * 17_000
    decoder.go_on(100)
    assert left > len(decoder.rest) > left - len(data) * 3000


@given(noise, places)
@settings(EXAMPLES)
def test_after_0xff_the_next_request_is_answered(data: bytes, cuts: list[int]) -> None:
    decoder = Decoder()
    receive_all(decoder, cut(data, cuts))
    descs_of(decoder, b"\xff")
    assert shown(decoder.receive(PING)) == shown(Decoder().receive(PING))


@given(noise)
@settings(EXAMPLES)
def test_every_event_can_be_answered_in_a_line_of_ascii(data: bytes) -> None:
    for event in Decoder().receive(data):
        if isinstance(event, protocol.Fault):
            line = protocol.encode_error(event.error, event.id)
        else:
            line = b"".join(map(bytes, protocol.encode_return(event.arguments, event.id, True)))  # type: ignore[arg-type]
        assert line.isascii()
        assert line.endswith(b"}\n")
        assert line.count(b"\n") == 1
        assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", line)


text = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=[*map(chr, range(0xFDD0, 0xFDF0))]),
    max_size=20,
).filter(lambda string: not any(ord(character) & 0xFFFE == 0xFFFE for character in string))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    text,
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=20
)


@given(values)
@settings(EXAMPLES)
def test_what_is_written_reads_back(value: Any) -> None:
    written = jsonwriter.write_exactly(value)
    assert written.isascii()
    read = parse(written.encode("ascii"))
    assert read == value
    assert parse(jsonwriter.write_exactly(read).encode("ascii")) == read


@given(noise)
@example(b"[0e1]")
@example(b'{"a":1,"a":2}')
@example(b'["\\ud83d\\ude00"]')
@example(b"[-0,-0.0,1E400,12345678901234567890]")
@settings(EXAMPLES)
def test_both_readers_agree(data: bytes) -> None:
    """Where Python's reader gives a value, QEMU's grammar gives the same one."""
    if not jsontext.is_plain(data):
        return
    try:
        value, end = jsontext.read_plainly(data.decode("ascii"), 0)
    except (ValueError, RecursionError):
        return
    assert repr(parse(data[:end])) == repr(value)


@given(noise)
@settings(EXAMPLES)
def test_the_fast_path_gives_what_the_lexer_gives(data: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "read", lambda *_: 0)
        patch.setattr(fast, "known", {})
        slowly = receive_all(Decoder(), [data])
    assert receive_all(Decoder(), [data]) == slowly


class TestMemory:
    """With limits so small that what is kept beyond them shows."""

    SIZE, TOKENS, DEPTH = 400, 8, 6

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(wire_decoder, "MAX_MESSAGE", self.SIZE)
        monkeypatch.setattr(wire_decoder, "MAX_TOKENS", self.TOKENS)
        monkeypatch.setattr(wire_decoder, "MAX_DEPTH", self.DEPTH)
        monkeypatch.setattr(lexer, "MAX_TOKEN", self.SIZE + 1)

    ENDLESS = (
        b" ",
        b"\n",
        b"a",
        b"1",
        b'"',
        b"\\",
        b"x\n",
        b"[",
        b"{",
        b"[1,",
        b"1 ",
        b",",
        b'{"a":',
        b"\xff",
        b"$ ",
        b"\xc3\xa9",
        b" " * 63 + b"1,",
        b" " * 65 + b"1,",
        b" " * 599 + b"1,",
        b" " * 2999 + b'"',
    )

    @pytest.mark.parametrize("piece", [1, 100, 3000])
    @pytest.mark.parametrize("repeated", ENDLESS)
    def test_it_is_bounded(self, repeated: bytes, piece: int) -> None:
        for begun in (b"", b"[", b'["', b"[1", b"$"):
            decoder = Decoder()
            decoder.receive(begun)
            for part in in_pieces(repeated * (3000 // len(repeated)), piece):
                decoder.receive(part)
                if piece > 1:
                    assert held(decoder) <= self.bound(), begun
            assert held(decoder) <= self.bound(), begun

    def bound(self) -> int:
        """A message, as text and as values, and a token that is not counted yet."""
        return int(2 * self.SIZE * 9 / 8) + self.TOKENS * 100 + 2000


def held(decoder: Decoder) -> int:
    """Bytes of all that a decoder remembers, what it is made of included."""
    seen: dict[int, int] = {}
    to_see: list[Any] = [*vars(decoder).values(), *vars(decoder._lexer).values()]
    if decoder._builder is not None:
        to_see += [getattr(decoder._builder, name) for name in decoder._builder.__slots__]
    while to_see:
        each = to_see.pop()
        if id(each) not in seen and not isinstance(each, type):
            seen[id(each)] = sys.getsizeof(each)
            if isinstance(each, dict):
                to_see += [*each.keys(), *each.values()]
            elif isinstance(each, list):
                to_see += each
    return sum(seen.values())


class TestWork:
    """Work is counted, not timed: bytes that a regular expression or a reader goes through."""

    UNIT = 2000

    @pytest.mark.parametrize("piece", [64, 1024])
    @pytest.mark.parametrize(
        ("before", "repeated", "after"),
        [
            (b'{"execute":"x","arguments":{"a":"', b"a", b'"}}\n'),
            (b'{"execute":"x","arguments":{"a":"', b"\\n", b'"}}\n'),
            (b'{"execute":"x","arguments":{"a":[1', b",1", b"]}}\n"),
            (b'{"execute":"x","arguments":{"a":[1', b" ", b"]}}\n"),
            (b"{'execute':'x','arguments':{'a':'", b"a", b"'}}\n"),
            (b"", PING + b"\n", b""),
            (b"", b"{]" + b"    " * 8, b""),
            (b"$", b"x", b"\n"),
            (b"", b" ", PING),
            (b"", b"1", b"\n"),
            (b'"', b"\xc3\xa9", b'"'),
            (b'{"execute":"x","id":[' + b"1," * 150, b"[[[1]]],", b"1]}\n"),
            (b'{"execute":"x","id":[' + b"1," * 150, b"[[[['a',1],1],1],1],", b"1]}\n"),
        ],
    )
    def test_ten_times_the_bytes_are_ten_times_the_work(
        self, before: bytes, repeated: bytes, after: bytes, piece: int
    ) -> None:
        once, ten_times = (
            work_on(in_pieces(before + repeated * (size // len(repeated)) + after, piece))
            for size in (self.UNIT, 10 * self.UNIT)
        )
        assert once >= self.UNIT * 0.9
        assert ten_times <= 10.5 * once


def work_on(pieces: list[bytes]) -> int:
    """Bytes gone through and calls made to find and read the messages in `pieces`."""
    work = 0

    def counting_run(run: Any) -> Any:
        def counted(data: bytes, position: int, limit: int) -> Any:
            nonlocal work
            match = run(data, position, limit)
            work += 1 + (match.end() - position if match else 0)
            return match

        return counted

    def counting_reader(reader: Any) -> Any:
        def counted(raw: Any, *rest: int) -> Any:
            nonlocal work
            work += len(raw) - (rest[0] if rest else 0)
            return reader(raw, *rest)

        return counted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "_PLAIN", SimpleNamespace(match=counting_run(runs._PLAIN.match)))
        rules = [
            (counting_run(run), *others) for run, *others in lexer._RULES or lexer._make_rules()
        ]
        patch.setattr(lexer, "_RULES", rules)
        for name in ("is_plain", "read_plainly", "string"):
            patch.setattr(jsontext, name, counting_reader(getattr(jsontext, name)))
        decoder = Decoder()
        for piece in pieces:
            decoder.receive(piece)
    return work


@pytest.mark.parametrize("data", [b'{"a":1,"a":2}', b"[1}", b'["\\x"]', b"[nope]"])
def test_a_bad_message_is_a_fault_and_no_exception(data: bytes) -> None:
    with pytest.raises(QgaError):
        parse(data)
    assert descs_of(Decoder(), data)[0].startswith("JSON parse error, ")
