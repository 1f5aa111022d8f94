"""The client's half of the protocol: pure functions of bytes."""

from __future__ import annotations

import json
import math
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from qga.client import CommandError, CommandNotFound, ProtocolError
from qga.client.wire import (
    DEEPEST,
    ID_REFUSED,
    LARGEST_READ,
    MAX_REQUEST,
    USUAL_REPLY,
    IdRefused,
    Reader,
    Reply,
    ReplyReader,
    SyncSearch,
    encode_request,
    outcome,
    parse_reply,
    reply_limit,
    tagged,
)
from tests.unit.client_peer import REFUSAL

STRAY = b'{"error": {"class": "GenericError", "desc": "JSON parse error, stray \'\\uFFFD\'"}}\n'


def sync_reply(search: SyncSearch, shift: int = 0) -> bytes:
    request = json.loads(search.request[1:])
    return b'\xff{"return": %d}\n' % (request["arguments"]["id"] + shift)


def decode_reply(line: bytes, command: str) -> object:
    return outcome(parse_reply(line), command)


def feed_in_pieces(reader: Reader, data: bytes, size: int) -> list[Reply]:
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


class Word(str):
    pass


@pytest.mark.parametrize(
    "value", ["\udcff", ("\udcff",), Word("\udcff"), [{"\udcff": 1}], {1: ["\udcff"]}]
)
def test_text_that_json_cannot_carry_is_refused_before_it_is_sent(value: object) -> None:
    with pytest.raises(ProtocolError, match="guest-x: 'a' is not UTF-8"):
        encode_request("guest-x", {"fine": "😀", "a": value})


def test_text_beyond_two_bytes_is_no_surrogate_however_deep_it_is() -> None:
    value: object = "😀"
    for _ in range(DEEPEST + 5):
        value = [value]
    assert rb"\ud83d\ude00" in encode_request("guest-x", {"a": value})


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
        b'{"return": NaN}',
        b'{"return": [-Infinity]}',
        b'{"return": 1e400}',
        b'{"return": "\\ud800"}',
        b'{"return": {"\\udc00\\ud800": 1}}',
        b'{"return": ' + b"[" * DEEPEST + b"]" * DEEPEST + b"}",
        b'{"return": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"return": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
    ],
)
def test_what_is_not_a_reply_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"in the reply '"):
        decode_reply(line, "guest-x")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"return": NaN}', "NaN is not JSON"),
        (b'{"return": 1e999}', "the number 1e999 is too large"),
        (b'{"return": ' + b"9" * 10_000 + b"}", "a number of 10000 digits"),
        (b'{"return": "\\uD83D"}', "half of a surrogate pair in a string"),
        (b"[" * 200 + b"]" * 200, "it is nested more than 100 levels deep"),
        (b"[" * 100_000, "it is nested too deep"),
        (b'{"return": "\xe4"}', "byte 0xe4 at 12 is not UTF-8"),
        (b"", "it ends too early"),
        (b'{"return": [1,', "it ends too early"),
        (b"hello", "unexpected text at character 0"),
        (b'{"return": 1} {}', "unexpected text at character 14"),
    ],
)
def test_a_reply_that_cannot_be_taken_is_named(line: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_reply(line)
    assert f": {reason}" in str(caught.value)


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert decode_reply(b'{"return": "\\uD83D\\uDE00"}', "x") == "\U0001f600"


def test_a_large_reply_is_one_of_long_strings_not_of_many_values() -> None:
    text = "x" * (USUAL_REPLY + 1)
    assert decode_reply(json.dumps({"return": [text, text]}).encode(), "x") == [text, text]
    many = b'{"return":[' + b"{}," * (USUAL_REPLY // 3 + 1) + b"{}]}"
    with pytest.raises(ProtocolError, match="more than 100000 values"):
        parse_reply(many)


def test_what_a_reply_may_have_follows_from_the_request() -> None:
    assert reply_limit("guest-get-osinfo", {}) == USUAL_REPLY
    assert reply_limit("guest-exec-status", {"pid": 1}) > 2 * (16 << 20) * 4 // 3
    for count in (0, 1, 4096, 1 << 20, LARGEST_READ):
        encoded = -(-count // 3) * 4
        assert encoded < reply_limit("guest-file-read", {"count": count}) <= encoded + 4096
    for nonsense in (-1, True, "x", 2**70):
        assert 0 < reply_limit("guest-file-read", {"count": nonsense}) < 65 << 20


def test_a_description_of_an_error_is_cut() -> None:
    with pytest.raises(CommandError) as caught:
        decode_reply(json.dumps({"error": {"desc": "x" * 100_000}}).encode(), "x")
    assert len(caught.value.desc) < 20_000


def test_a_request_is_tagged_with_an_id() -> None:
    request = tagged(encode_request("guest-ping", {}), 5)
    assert json.loads(request) == {"execute": "guest-ping", "id": 5}
    assert request.endswith(b"\n")
    assert tagged(b"{}\n", None) == b"{}\n"


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_replies_with_another_id_or_none_are_dropped(size: int) -> None:
    reader = ReplyReader(ids=[7])
    for other in (b'{"return": 1}', b'{"return": 1, "id": 8}', b'{"return": 1, "id": "7"}'):
        assert feed_in_pieces(reader, other + b"\n", size) == []
        assert other.decode() in reader.dropped
    error = b'{"error": {"class": "GenericError", "desc": "of another"}}\n'
    assert feed_in_pieces(reader, error, size) == []
    assert feed_in_pieces(reader, b'{"return": 2, "id": 7}\n', size) == [{"return": 2, "id": 7}]


def test_what_is_dropped_has_a_bound_too() -> None:
    reader = ReplyReader(max_reply=100, ids=[7])
    with pytest.raises(ProtocolError, match="larger than 100 bytes"):
        feed_in_pieces(reader, b'{"return": 1}\n' * 10, 7)


def test_many_short_lines_take_linear_time() -> None:
    reader = ReplyReader(ids=[7])
    start = time.process_time()
    assert reader.feed(b'{"return":1}\n' * 100_000) is None
    assert time.process_time() - start < 5


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_reply_line_is_found_however_it_is_cut(size: int) -> None:
    reader = ReplyReader()
    assert feed_in_pieces(reader, b'{"return": {}}\n', size) == [{"return": {}}]
    assert not reader.rest


def test_bytes_behind_a_reply_are_noticed() -> None:
    reader = ReplyReader()
    assert reader.feed(b'{"return": 1}\ntw') == {"return": 1}
    assert reader.rest


def test_a_reply_may_be_as_large_as_the_limit_and_no_larger() -> None:
    assert ReplyReader(max_reply=12).feed(b'{"return":1}\n') == {"return": 1}
    reader = ReplyReader(max_reply=10)
    assert reader.feed(b"01234567") is None
    with pytest.raises(ProtocolError, match="larger than 10 bytes"):
        reader.feed(b"890")


def test_the_sync_request_clears_the_parser_first() -> None:
    request = SyncSearch().request
    assert request[:1] == b"\xff"
    assert json.loads(request[1:])["execute"] == "guest-sync-delimited"


def test_each_sync_has_an_id_of_its_own() -> None:
    assert SyncSearch().request != SyncSearch().request


@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_sync_passes_over_stale_replies_and_foreign_syncs(size: int) -> None:
    search = SyncSearch()
    stale = b'half a line"}\n' + STRAY + b'{"return": 1}\n' + sync_reply(search, shift=1)
    found = feed_in_pieces(search, stale + sync_reply(search), size)
    assert found == [json.loads(sync_reply(search)[1:-1])]


@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_sync_finds_out_whether_ids_are_echoed(size: int) -> None:
    search = SyncSearch()
    number = json.loads(search.request[1:])["id"]
    (reply,) = feed_in_pieces(search, b'\xff{"return": %d, "id": %d}\n' % (number, number), size)
    assert search.echoed(reply)
    (reply,) = feed_in_pieces(search, sync_reply(search), size)
    assert not search.echoed(reply)
    with pytest.raises(IdRefused):
        feed_in_pieces(SyncSearch(), REFUSAL, size)
    assert b'"id": ' not in SyncSearch(tagging=False).request.replace(b'{"id": ', b"")


def test_a_number_alone_is_not_a_sync_reply_without_its_mark() -> None:
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
    assume(ID_REFUSED not in noise)  # which is heard as what it says
    search = SyncSearch()
    assert len(feed_in_pieces(search, noise + sync_reply(search), size)) == 1
