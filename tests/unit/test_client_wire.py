"""The client's half of the protocol: pure functions of bytes."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qga.client import CommandError, CommandNotFound, ProtocolError
from qga.client.wire import (
    MAX_REQUEST,
    Reader,
    ReplyReader,
    SyncSearch,
    decode_reply,
    encode_request,
)

STRAY = b'{"error": {"class": "GenericError", "desc": "JSON parse error, stray \'\\uFFFD\'"}}\n'


def sync_reply(search: SyncSearch, shift: int = 0) -> bytes:
    request = json.loads(search.request[1:])
    return b'\xff{"return": %d}\n' % (request["arguments"]["id"] + shift)


def feed_in_pieces(reader: Reader, data: bytes, size: int) -> list[bytes]:
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    return [found for piece in pieces if (found := reader.feed(piece)) is not None]


def test_a_request_is_one_line_of_ascii() -> None:
    line = encode_request("guest-file-open", {"path": "/ä\n", "mode": "r"})
    assert line == (
        b'{"execute": "guest-file-open", "arguments": {"path": "/\\u00e4\\n", "mode": "r"}}\n'
    )


def test_a_request_without_arguments_has_no_such_member() -> None:
    assert encode_request("guest-ping", {}) == b'{"execute": "guest-ping"}\n'


def test_a_request_the_agent_cannot_take_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ProtocolError, match=r"guest-x: a request of .* is too large"):
        encode_request("guest-x", {"a": "x" * MAX_REQUEST})
    with pytest.raises(ValueError, match="JSON"):
        encode_request("guest-x", {"a": math.inf})


@pytest.mark.parametrize("value", [{}, [], None, 0, False, "ä", {"a": [1]}])
def test_the_return_value_comes_out_as_it_went_in(value: object) -> None:
    assert decode_reply(json.dumps({"return": value, "id": 1}).encode(), "x") == value


def test_the_mark_of_a_sync_reply_is_not_part_of_it() -> None:
    assert decode_reply(b'\xff{"return": 5}', "guest-sync-delimited") == 5


def test_error_replies_become_errors_by_their_class() -> None:
    with pytest.raises(CommandError, match=r"^guest-x: it broke$") as generic:
        decode_reply(b'{"error": {"class": "GenericError", "desc": "it broke"}}', "guest-x")
    assert not isinstance(generic.value, CommandNotFound)
    assert generic.value.class_ == "GenericError"
    with pytest.raises(CommandNotFound) as unknown:
        decode_reply(b'{"error": {"class": "CommandNotFound", "desc": "no"}}', "guest-y")
    assert (unknown.value.desc, unknown.value.command) == ("no", "guest-y")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"garbage",
        b"[]",
        b"{}",
        b'"return"',
        b'{"error": 1}',
        b'{"return": inf}',
        b'{"return": "\xe4"}',
        b"[" * 100_000,
        b'{"return": ' + b"9" * 10_000 + b"}",
    ],
)
def test_what_is_no_reply_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"in the reply '"):
        decode_reply(line, "guest-x")


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_reply_line_is_found_however_it_is_cut(size: int) -> None:
    reader = ReplyReader()
    assert feed_in_pieces(reader, b'{"return": {}}\n', size) == [b'{"return": {}}']
    assert not reader.surplus


def test_bytes_behind_a_reply_are_noticed() -> None:
    reader = ReplyReader()
    assert reader.feed(b"one\ntw") == b"one"
    assert reader.surplus


def test_a_reply_may_be_as_large_as_the_limit_and_no_larger() -> None:
    assert ReplyReader(max_reply=10).feed(b"0123456789\n") == b"0123456789"
    reader = ReplyReader(max_reply=10)
    assert reader.feed(b"01234567") is None
    with pytest.raises(ProtocolError, match="larger than 10 bytes"):
        reader.feed(b"890")


def test_the_sync_request_clears_the_parser_first() -> None:
    assert SyncSearch().request.startswith(b'\xff{"execute": "guest-sync-delimited", ')


def test_each_sync_has_an_id_of_its_own() -> None:
    assert SyncSearch().request != SyncSearch().request


@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_sync_passes_over_stale_replies_and_foreign_syncs(size: int) -> None:
    search = SyncSearch()
    stale = b'half a line"}\n' + STRAY + b'{"return": 1}\n' + sync_reply(search, shift=1)
    found = feed_in_pieces(search, stale + sync_reply(search), size)
    assert found == [sync_reply(search)[1:-1]]


def test_a_number_alone_is_no_sync_reply_without_its_mark() -> None:
    search = SyncSearch()
    assert search.feed(sync_reply(search)[1:]) is None
    assert search.feed(sync_reply(search)) is not None


def test_endless_noise_after_a_mark_does_not_hide_the_reply() -> None:
    search = SyncSearch()
    assert search.feed(b"\xff") is None
    for _ in range(50):
        assert search.feed(b"noise" * 1000) is None
    assert search.feed(sync_reply(search)) is not None


@given(st.binary(max_size=200), st.integers(1, 300))
def test_sync_is_found_behind_any_bytes(noise: bytes, size: int) -> None:
    search = SyncSearch()
    assert len(feed_in_pieces(search, noise + sync_reply(search), size)) == 1
