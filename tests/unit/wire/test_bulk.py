"""Long strings take short cuts, which must not be seen."""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qga.wire import bulk, lexer
from qga.wire.decoder import Decoder
from qga.wire.protocol import Request
from tests.unit.decoding import cut, in_pieces, receive_all
from tests.unit.wire.test_protocol_properties import TELLING

pytestmark = pytest.mark.usefixtures("codec")

TEXT = b"QUJD" * 64  # more than the rest of what is made of it
WRITE = b'{"execute":"guest-file-write","arguments":{"handle":1,"buf-b64":"%s"},"id":["a"]}\n'


@pytest.mark.parametrize("size", [1000, 4096, 98304])
def test_a_long_argument_arrives_whole(size: int) -> None:
    text = b"QUJD" * 50_000
    decoder = Decoder()
    events = [event for piece in in_pieces(WRITE % text, size) for event in decoder.receive(piece)]
    arguments = {"handle": 1, "buf-b64": text.decode()}
    assert events == [Request("guest-file-write", arguments, ["a"])]


@pytest.mark.parametrize(
    "raw",
    [
        WRITE % (b"QUJD" * 50_000),
        WRITE % (b"QUJD\\n" * 50_000),
        WRITE % ("\u20ac" * 50_000).encode(),
        b'{"execute":"x","id":"%s"}' % (b"a" * 100_000),
        b'{"execute":"x","arguments":{"a":["%s"]}}' % (b"a" * 100_000),
        b'{"execute":"x","arguments":{"%s":1}}' % (b"a" * 100_000),
        b'{"execute":"x","arguments":"%s"}' % (b"a" * 100_000),
        b'["%s"]' % (b"a" * 100_000),
        b'{"a":[%s]}' % b",".join([b'"a"'] * 30_000),
        b'{"a":[%s]}' % b",".join([b"1"] * 50_000),
    ],
)
def test_reads_as_the_ordinary_reader_does(raw: bytes) -> None:
    raw = raw.strip()
    (slowly,) = receive_all(Decoder(), in_pieces(raw, 5000))
    assert receive_all(Decoder(), [raw]) == [slowly]


@pytest.mark.parametrize("text", [b"QU\x00D", b"QU\nD", b"QU\x7fD", b"QU\xffD", b"QU'D", b"{[QUJD"])
def test_one_read_or_many_make_no_difference(text: bytes) -> None:
    raw = WRITE % (b"QUJD" * 5000 + text)
    assert receive_all(Decoder(), [raw]) == receive_all(Decoder(), in_pieces(raw, 1000))


@st.composite
def writes(draw: st.DrawFn) -> bytes:
    """Requests that write, with some bytes put in or replaced."""
    data = WRITE % TEXT
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = start + draw(st.integers(0, 2))
        data = data[:start] + draw(st.sampled_from(TELLING)) + data[end:]
    return data + draw(st.sampled_from([b"", b"\n \n", b"}", WRITE % b"QUJD"]))


@given(writes(), st.lists(st.integers(0, 300), max_size=4))
@settings(max_examples=300, deadline=None)
def test_short_cuts_change_no_event(data: bytes, places: list[int]) -> None:
    expected = receive_all(Decoder(), [data])
    with mock.patch.object(bulk, "LONG", 1), mock.patch.object(lexer, "_LONG", 1):
        assert receive_all(Decoder(), cut(data, places)) == expected
