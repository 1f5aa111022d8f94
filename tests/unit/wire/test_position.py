"""Positions in the texts of parse errors: those that QEMU 11.1.3 gives, its oddities included."""

from __future__ import annotations

import pytest

from qga.wire import lexer
from qga.wire.decoder import Decoder
from qga.wire.position import Position
from qga.wire.protocol import Fault
from tests.unit.decoding import PING, in_pieces


def places(data: bytes, size: int, decoder: Decoder | None = None) -> list[str]:
    """What comes before the texts of the faults in `data`."""
    decoder = decoder or Decoder()
    return [
        event.error.desc.partition(" ")[0].rstrip(":")
        for piece in in_pieces(data, size)
        for event in decoder.receive(piece)
        if isinstance(event, Fault) and ": JSON parse error" in event.error.desc
    ]


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\n\n  nope\n", ["3:3"]),
        (b"\r\r\rnope,", ["1:4", "1:9"]),
        (b'["\xc3\xa9", nope]', ["1:8"]),
        (b'{"a":1,"a":[ 2 ]}', ["1:16"]),
        (b'"a\nx ,', ["1:1", "2:4"]),
        (PING + b",", ["1:26"]),
        (PING + b"\n" + PING + b"\n,", ["3:1"]),
        (b'{"a":"\xc3\xa9"}\n  ,', ["2:3"]),
        # A byte that ends a number, a word or what is skipped is counted twice.
        (b"1,,", ["1:3", "1:3"]),
        (b"1 ,", ["1:3"]),
        (b"nope,", ["1:1", "1:6"]),
        (b"1nope,", ["1:3", "1:7"]),
        (b"1\n,", ["2:1"]),
        (b"$x,,", ["1:1", "1:4", "1:4"]),
        (b"$\n,", ["1:1", "2:1"]),
        (b"$\x01,", ["1:1", "1:3", "1:4"]),
        (b"1\xff", ["1:3"]),
        (b"[1 2]]", ["1:4", "1:6"]),
        (b"[1}]", ["1:4", "1:4"]),
    ],
)
def test_places(data: bytes, expected: list[str], size: int) -> None:
    assert places(data, size) == expected


@pytest.mark.parametrize("size", [1, 1000])
def test_after_a_token_that_is_too_long(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """The next one has its position."""
    monkeypatch.setattr(lexer, "MAX_TOKEN", 100)
    found = places(b"  " + b"1" * 101 + b",,", size, Decoder(99))
    assert found == ["1:3", "1:105"]


def test_connections_share_the_position_of_their_channel() -> None:
    position = Position()
    first, second = Decoder(position=position), Decoder(position=position)
    first.receive(PING + b"\n\n")
    first.receive(b"[1,")
    assert places(b"nope ", 100, second) == ["3:4"]
    first.reset()
    assert places(b"\xff\xff", 100, Decoder(position=position)) == ["3:9", "3:11"]


def test_what_is_forgotten_unread_counts() -> None:
    decoder = Decoder()
    decoder.receive(PING + b"\n" + PING + b"\n\n", most=1)
    decoder.reset()
    assert places(b",", 1, decoder) == ["4:1"]


def test_where_decoding_pauses_behind_a_string_that_is_too_long_does_not_matter() -> None:
    data = b'"' + b"a" * 3100 + b"!"
    decoder = Decoder(3000)
    events = [*decoder.receive(data, 1)]
    while decoder.rest:
        events += decoder.go_on(1)
    found = [event.error.desc for event in events if isinstance(event, Fault)]
    expected = [
        event.error.desc for event in Decoder(3000).receive(data) if isinstance(event, Fault)
    ]
    assert found == expected
