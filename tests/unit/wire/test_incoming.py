"""A long base64 argument is decoded while it arrives, and is the same as if it were not."""

from __future__ import annotations

import base64
import os
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qga import Base64, QgaError, decode_base64
from qga.wire import base64 as wire_base64
from qga.wire.decoder import Decoder
from qga.wire.incoming import Incoming
from qga.wire.protocol import Fault, Request
from tests.unit.decoding import cut, in_pieces

pytestmark = pytest.mark.usefixtures("codec")

DATA = os.urandom(30_001)
TEXT = base64.b64encode(DATA).decode()
TELLING = st.sampled_from(["Q", "QUJD", TEXT[:200], "=", "==", "\n", "!", "\x7f"])


def events_of(raw: str, size: int) -> Any:
    decoder = Decoder()
    return [e for piece in in_pieces(raw.encode(), size) for e in decoder.receive(piece)]


def argument_of(text: str, size: int) -> Any:
    (request,) = events_of(f'{{"execute":"x","arguments":{{"a":"{text}"}}}}\n', size)
    assert isinstance(request, Request)
    return request.arguments["a"]


@pytest.mark.parametrize("size", [2100, 4096, 4099, 10**6])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_an_argument_arrives_decoded(size: int, padding: int) -> None:
    data = DATA[: 30_000 - padding]
    text = base64.b64encode(data).decode()
    argument = argument_of(text, size)
    assert type(argument) is Base64
    assert argument.decode() == data
    assert str(argument) == text
    assert argument.decode() == data, "once more"
    assert str(argument) == text


@pytest.mark.parametrize("size", [2100, 10**6])
@pytest.mark.parametrize(
    "text",
    [
        TEXT + TEXT,  # with padding in the middle
        TEXT + "\\n",
        TEXT + "\\u0041QU",
        TEXT[:20_000] + "\u20ac" + TEXT[:20_000],
        TEXT[:20_001] + "!" + TEXT[:20_000],
        TEXT[:20_000] + "=" + TEXT[:20_000],
    ],
)
def test_what_is_not_all_base64_is_what_it_would_be_in_one_piece(text: str, size: int) -> None:
    argument = argument_of(text, size)
    plain = text.replace("\\n", "\n").replace("\\u0041", "A")
    assert str(argument) == plain
    given = argument if type(argument) is Base64 else Base64(argument)
    assert outcome(given) == outcome(Base64(plain))


@pytest.mark.parametrize(
    "request_",
    [
        '{"execute":"x","id":"%s"}',
        '{"execute":"x","id":{"a":"%s"}}',
        '{"execute":"x","arguments":{"a":["%s"]}}',
        '{"execute":"x","arguments":{"a":{"b":"%s"}}}',
        '{"execute":"x","arguments":{"%s":1}}',
        '{"execute":"%s"}',
    ],
)
def test_everywhere_else_it_is_a_string(request_: str) -> None:
    (request,) = events_of(request_ % TEXT, 3000)
    assert isinstance(request, Request)
    assert TEXT in str(request)
    assert "Base64" not in str(types_in([request.execute, request.arguments, request.id]))


def types_in(value: Any) -> Any:
    if isinstance(value, dict):
        return [types_in([key, item]) for key, item in value.items()]
    return [types_in(item) for item in value] if isinstance(value, list) else type(value)


@pytest.mark.parametrize("control", ["\x00", "\x1f"])
def test_a_fault_shows_the_whole_token(control: str) -> None:
    raw = f'{{"execute":"x","arguments":{{"a":"{TEXT[:9000]}{control}"}}}}'
    for size in (2100, 10**6):
        fault, *_ = events_of(raw, size)
        assert isinstance(fault, Fault)
        assert f"stray '\"{TEXT[:900]}" in fault.error.desc


def test_it_takes_no_memory_besides_the_bytes() -> None:
    raw = b'{"execute":"x","arguments":{"a":"%s"}}\n' % (b"QUJD" * 1_000_000)
    pieces = in_pieces(raw, 96 * 1024)
    decoder = Decoder()
    tracemalloc.start()
    try:
        (request,) = [event for piece in pieces for event in decoder.receive(piece)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(request, Request)
    assert len(request.arguments["a"].decode()) == 3_000_000
    assert peak < 4_000_000, "its text has 4,000,000 bytes"


@pytest.mark.parametrize("end", [b"\xff", b'\x00"}}'])
def test_what_was_taken_is_forgotten_with_its_message(end: bytes) -> None:
    decoder = Decoder()
    begin = b'{"execute":"x","arguments":{"a":"' + b"QUJD" * 5000
    decoder.receive(begin)
    decoder.receive(end)
    decoder.receive(b"\xff")
    assert not decoder._lexer.incoming.size
    (request,) = decoder.receive(b'{"execute":"x","arguments":{"a":"%s"}}\n' % TEXT.encode())
    assert isinstance(request, Request)
    assert request.arguments["a"].decode() == DATA


def outcome(argument: Base64) -> bytes | str:
    try:
        return bytes(argument.decode())
    except QgaError as error:
        return error.desc


@given(st.lists(TELLING, max_size=6).map("".join), st.lists(st.integers(0, 900), max_size=5))
def test_taken_or_not_it_means_the_same(text: str, places: list[int]) -> None:
    incoming, rest, at = Incoming(), b"", 0
    for piece in cut(text.encode(), places):
        if rest or not incoming.take(piece, at):
            rest += piece
        at += len(piece)
    argument = incoming.joined(rest.decode())
    assert str(argument) == text
    assert argument == text
    try:
        expected: bytes | str = decode_base64(text)
    except QgaError as error:
        expected = error.desc
    assert outcome(argument) == expected


def test_a_short_piece_does_not_end_the_decoding() -> None:
    decoder = Decoder()
    text = TEXT * 3
    start = b'{"execute":"x","arguments":{"a":"' + text[:20_000].encode()
    for piece in (start, text[20_000:20_100].encode(), text[20_100:].encode()[:19_000]):
        assert not decoder.receive(piece)
    assert decoder._lexer.incoming.size == 39_100


def test_a_fault_behind_much_base64_encodes_only_what_it_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = '"' + TEXT[:39_996] + "\x01"
    (expected,) = events_of(raw, 100)
    lengths: list[int] = []
    encode = wire_base64.encode

    def observed(data: bytes) -> bytes | bytearray:
        lengths.append(len(data))
        return encode(data)

    monkeypatch.setattr(wire_base64, "encode", observed)
    (fault,) = events_of(raw, 4096)
    assert fault.error.desc == expected.error.desc
    assert max(lengths) <= 1024
