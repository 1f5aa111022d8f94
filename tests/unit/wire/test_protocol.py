"""The wire: which bytes are which events, and which results are which bytes."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from qga import CommandNotFound, Payload, QgaError
from qga.wire import decoder as wire_decoder
from qga.wire import fast, jsontext, jsonwriter, lexer, payload
from qga.wire.decoder import Decoder
from qga.wire.protocol import ABSENT, Constant, Fault, Request, encode_error, encode_return
from tests.unit.decoding import PING, descs, descs_of, in_pieces, receive_all, shown

RECORDED = Path(__file__).parents[1] / "recorded_replies.txt"
LONG = 64 * 1024 + 1
AFTER_FF = "JSON parse error, stray '\ufffd'"


def recorded() -> dict[str, list[tuple[bytes, list[str]]]]:
    """(input, replies) of each line, by topic; see the top of the file."""
    rows: dict[str, list[tuple[bytes, list[str]]]] = {}
    for line in RECORDED.read_text(encoding="ascii").splitlines():
        if line.startswith("## "):
            topic = rows.setdefault(line[3:], [])
        elif line and not line.startswith("#"):
            sent, *replies = line.removesuffix(" =>").split(" => ")
            raw = sent.encode().decode("unicode_escape").encode("latin-1")
            topic.append((raw, [spelled_out(reply) for reply in replies]))
    return rows


def _in_base64(members: dict[str, Any]) -> dict[str, str]:
    payloads = {name: value for name, value in members.items() if isinstance(value, Payload)}
    return {name: b64encode(value.data).decode() for name, value in payloads.items()}


def spelled_out(reply: str) -> str:
    kind, text = reply.split(" ", 1)
    if kind == "=":
        return text
    if kind == "P":
        position, text = text.split(" ", 1)
        desc = f"{position}: JSON parse error, {text}"
    else:
        desc = f"QMP input {text}"
    return f'{{"error": {{"class": "GenericError", "desc": "{desc}"}}}}'


ROWS = recorded()


def replies(data: bytes, piece: int) -> list[str]:
    """What is answered to `data`, which holds no command but guest-ping."""
    decoder = Decoder()
    lines = b""
    for part in in_pieces(data, piece):
        for event in decoder.receive(part):
            if isinstance(event, Fault):
                lines += encode_error(event.error, event.id)
            else:
                assert (event.execute, event.arguments) == ("guest-ping", {})
                lines += as_bytes(encode_return(None, event.id))
    return lines.decode("ascii").splitlines()


def as_bytes(parts: list[Any]) -> bytes:
    assert all(isinstance(part, bytes) for part in parts)
    return b"".join(parts)


@pytest.mark.parametrize("topic", ROWS)
def test_replies_are_those_of_the_original(topic: str) -> None:
    for sent, expected in ROWS[topic]:
        assert replies(sent + b"\xff", len(sent) + 1) == expected, sent
        assert replies(sent + b"\xff", 1) == expected, sent


def test_the_recorded_replies_are_all_there() -> None:
    assert sum(map(len, ROWS.values())) > 500


class TestRequests:
    def test_a_line(self) -> None:
        assert list(Decoder().receive(PING + b"\n")) == [Request("guest-ping", {}, ABSENT)]

    def test_without_a_newline(self) -> None:
        assert list(Decoder().receive(PING)) == [Request("guest-ping", {}, ABSENT)]

    @pytest.mark.parametrize("between", [b"", b"\n", b"\r\n", b" \t", b"\n" * 500])
    def test_several_in_one_piece(self, between: bytes) -> None:
        data = between.join([PING, b'{"execute": "x", "id": 1}', PING]) + between
        names = [event.execute for event in Decoder().receive(data) if isinstance(event, Request)]
        assert names == ["guest-ping", "x", "guest-ping"]

    def test_arguments_and_id(self) -> None:
        (event,) = Decoder().receive(
            b'{"id": [1, null], "arguments": {"a": {"b": "c"}}, "execute": "x"}'
        )
        assert event == Request("x", {"a": {"b": "c"}}, [1, None])

    def test_null_is_an_id(self) -> None:
        (event,) = Decoder().receive(b'{"execute": "x", "id": null}')
        assert event.id is None

    def test_it_is_an_event_with_its_last_byte(self) -> None:
        decoder = Decoder()
        assert decoder.receive(PING[:-1]) == []
        assert decoder.receive(PING[-1:]) == [Request("guest-ping", {}, ABSENT)]

    def test_a_good_one_and_the_beginning_of_another(self) -> None:
        decoder = Decoder()
        assert len(decoder.receive(PING + b'{"execute": {}')) == 1
        assert shown(decoder.receive(b"}")) == shown(Decoder().receive(b'{"execute": {}}'))

    def test_a_repeated_request(self) -> None:
        decoder = Decoder()
        for _ in range(3):
            assert descs_of(decoder, PING) == ["guest-ping"]
            assert descs_of(decoder, b'{"execute": "a"}\n') == ["a"]
            assert descs_of(decoder, PING[:5]) == []
            assert descs_of(decoder, PING[5:]) == ["guest-ping"]

    def test_a_repeated_request_inside_a_string(self) -> None:
        decoder = Decoder()
        assert descs_of(decoder, PING) == ["guest-ping"]
        assert descs_of(decoder, b"{'execute': '") == []
        assert descs_of(decoder, PING) == []
        assert descs_of(decoder, b"'}") == [PING.decode()]

    def test_many_that_differ_do_not_pile_up(self) -> None:
        decoder = Decoder()
        for number in range(1000):
            decoder.receive(b'{"execute": "a%d"}\n' % number)
        assert len(fast.known) <= fast.MOST_KNOWN

    def test_single_quotes(self) -> None:
        assert descs(b"{'execute': 'guest-ping'}\n") == ["guest-ping"]

    def test_good_ones_before_and_after_a_bad_one_in_one_piece(self) -> None:
        assert descs(PING + b"{]" + PING + b"[nope]\n" + PING + b"\n") == [
            "guest-ping",
            "JSON parse error, expecting key",
            "guest-ping",
            "JSON parse error, invalid keyword 'nope'",
            "guest-ping",
        ]


class TestEnvelope:
    @pytest.mark.parametrize(
        ("text", "desc"),
        [
            ("[]", "must be a JSON object"),
            ("1\n", "must be a JSON object"),
            ("'x'", "must be a JSON object"),
            ("null ", "must be a JSON object"),
            ("[{'execute': 'guest-ping', 'id': 1}]", "must be a JSON object"),
            ("{}", "lacks member 'execute'"),
            ("{'arguments': {}}", "lacks member 'execute'"),
            ("{'execute': 1}", "member 'execute' must be a string"),
            ("{'execute': null}", "member 'execute' must be a string"),
            ("{'foo': 2, 'execute': 1}", "member 'execute' must be a string"),
            ("{'arguments': 1, 'execute': 1}", "member 'execute' must be a string"),
            ("{'arguments': 1}", "member 'arguments' must be an object"),
            ("{'foo': 1, 'arguments': 1}", "member 'arguments' must be an object"),
            ("{'execute': 'x', 'arguments': []}", "member 'arguments' must be an object"),
            ("{'execute': 'x', 'arguments': null}", "member 'arguments' must be an object"),
            ("{'foo': 2}", "member 'foo' is unexpected"),
            ("{'foo': 2, 'bar': 1}", "member 'foo' is unexpected"),
            ("{'exec-oob': 'x', 'execute': 'x'}", "member 'exec-oob' is unexpected"),
            ("{'execute': 'x', '%s': 1}", "member '%s' is unexpected"),
            ("{'execute\\u0000': 'x'}", "member 'execute\0' is unexpected"),
        ],
    )
    def test_what_is_wrong(self, text: str, desc: str) -> None:
        assert descs(text.encode()) == [f"QMP input {desc}"]
        assert descs(text.replace("'", '"').encode()) == [f"QMP input {desc}"]

    @pytest.mark.parametrize("wrong", ["'execute': 1", "'arguments': 1", "'foo': 2", "'a': {}"])
    def test_the_id_is_kept(self, wrong: str) -> None:
        (event,) = Decoder().receive(f"{{{wrong}, 'id': 'x'}}".encode())
        assert isinstance(event, Fault)
        assert event.id == "x"

    def test_there_is_no_id_without_an_object(self) -> None:
        for event in Decoder().receive(b"[1] {] 'id' "):
            assert event.id is ABSENT


class TestReset:
    @pytest.mark.parametrize(
        "pending",
        [b"{", b'{"execute":"gu', b'["a\\', b"[" * 500, b"[1,", b"{'a':1.", b"$", b"tru", b"-"],
    )
    def test_0xff_discards_pending_bytes(self, pending: bytes) -> None:
        decoder = Decoder()
        decoder.receive(pending)
        assert descs_of(decoder, b"\xff")[-1].startswith("JSON parse error, ")
        assert decoder.receive(PING) == [Request("guest-ping", {}, ABSENT)]

    def test_0xff_by_itself_is_an_error(self) -> None:
        assert descs(b"\xff" + PING) == [AFTER_FF, "guest-ping"]
        assert descs(b"\xff\xff\xff") == [AFTER_FF] * 3


class TestDepth:
    DEEPEST = jsontext.MAX_DEPTH

    @pytest.mark.parametrize(("opener", "closer"), [(b"[", b"]"), (b'{"a":', b"}")])
    def test_1024_levels_are_a_value(self, opener: bytes, closer: bytes) -> None:
        data = opener * self.DEEPEST + b"1" + closer * self.DEEPEST
        wrong = "must be a JSON object" if opener == b"[" else "member 'a' is unexpected"
        assert descs(data + b"\n") == [f"QMP input {wrong}"]

    @pytest.mark.parametrize(
        ("openers", "last"),
        [
            (b"[" * DEEPEST, b"["),
            (b'{"a":' * DEEPEST, b"{"),
            (b'[{"a":' * (DEEPEST // 2), b"["),
            (b'{"a":[' * (DEEPEST // 2), b"{"),
        ],
    )
    def test_the_1025th_is_a_fault_at_once(self, openers: bytes, last: bytes) -> None:
        decoder = Decoder()
        assert descs_of(decoder, openers) == []
        assert descs_of(decoder, last) == ["JSON nesting depth limit exceeded"]
        assert descs_of(decoder, PING) == []
        assert descs_of(decoder, b"\xff" + PING) == ["guest-ping"]

    def test_an_id_of_1023_levels(self) -> None:
        nested = b"[" * (self.DEEPEST - 1) + b"]" * (self.DEEPEST - 1)
        (event,) = Decoder().receive(b'{"execute": "x", "id": %s}' % nested)
        (part,) = encode_return(None, event.id)
        assert part == b'{"return": {}, "id": %s}\n' % nested

    def test_the_rest_is_swallowed_until_its_brackets_balance(self) -> None:
        data = b"[" * (self.DEEPEST + 6) + PING + b"]" * (self.DEEPEST + 6)
        assert descs(data + PING) == ["JSON nesting depth limit exceeded", "guest-ping"]


def list_of(tokens: int) -> bytes:
    """A list of an odd number of tokens."""
    return b"[1" + b",1" * ((tokens - 3) // 2) + b"]"


class TestTokenCount:
    TOO_MANY = "JSON token count limit exceeded"

    @pytest.fixture
    def _few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(wire_decoder, "MAX_TOKENS", 101)

    @pytest.mark.usefixtures("_few")
    @pytest.mark.parametrize("piece", [1, 7, 1000])
    def test_the_highest_number_of_tokens(self, piece: int) -> None:
        found = receive_all(Decoder(), in_pieces(list_of(101), piece))
        assert found == shown([Fault(QgaError("QMP input must be a JSON object"))])

    @pytest.mark.usefixtures("_few")
    @pytest.mark.parametrize("piece", [1, 7, 1000])
    def test_one_token_more_is_an_error(self, piece: int) -> None:
        data = list_of(103)
        found = receive_all(Decoder(), in_pieces(data, piece))
        assert found == shown([Fault(QgaError(self.TOO_MANY))])

    @pytest.mark.usefixtures("_few")
    def test_tokens_are_counted_for_each_message(self) -> None:
        decoder = Decoder()
        for _ in range(5):
            assert descs_of(decoder, list_of(101)) == ["QMP input must be a JSON object"]
        descs_of(decoder, b"[1,1,1,1$")
        assert descs_of(decoder, b"\n" + list_of(101)) == ["QMP input must be a JSON object"]

    @pytest.mark.usefixtures("_few")
    def test_the_next_request_is_answered(self) -> None:
        assert descs(list_of(103) + PING) == [self.TOO_MANY, "guest-ping"]

    def test_the_limit_of_qemu(self) -> None:
        assert wire_decoder.MAX_TOKENS == 2097152


class TestSize:
    TOO_BIG = "JSON token size limit exceeded"
    FIVE_LETTERS = "JSON parse error, invalid keyword 'aaaaa'"

    def test_the_limits_of_qemu(self) -> None:
        assert payload.MAX_MESSAGE == 67108863
        assert lexer.MAX_TOKEN == 67108864

    @pytest.fixture
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(wire_decoder, "MAX_MESSAGE", 99)
        monkeypatch.setattr(lexer, "MAX_TOKEN", 100)

    @pytest.mark.usefixtures("_small")
    @pytest.mark.parametrize("piece", [1, 7, 1000])
    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            # Quotes and escapes count as sent, white space does not.
            (b'["%s"]' % (b"a" * 95), ["QMP input must be a JSON object"]),
            (b'["%s"]' % (b"a" * 96) + PING, [TOO_BIG, "guest-ping"]),
            (b'[ \n"%s" \t ]' % (b"a" * 95), ["QMP input must be a JSON object"]),
            (b'["%s"]' % (b"\\n" * 47), ["QMP input must be a JSON object"]),
            (b'["%s"]' % (b"\\n" * 48), [TOO_BIG]),
            (b'"%s"' % (b"a" * 97), ["QMP input must be a JSON object"]),
            (b'"%s"' % (b"a" * 98) + PING, [TOO_BIG, "guest-ping"]),
            (b'["%s",1]' % (b"a" * 93), ["QMP input must be a JSON object"]),
            (b'["%s",1]' % (b"a" * 94), [TOO_BIG]),
            (b"[%s]" % (b" " * 5000), ["QMP input must be a JSON object"]),
            # A token is too big before it ends; what comes after it begins anew.
            (b'"%s\n' % (b"a" * 105) + PING, [TOO_BIG, FIVE_LETTERS, "guest-ping"]),
            (b"%s\n" % (b"1" * 106), [TOO_BIG, "QMP input must be a JSON object"]),
            (b"%s\n" % (b"a" * 106), [TOO_BIG, FIVE_LETTERS]),
        ],
    )
    def test_the_size_limit_of_a_message(
        self, data: bytes, expected: list[str], piece: int
    ) -> None:
        decoder = Decoder()
        found = [desc for part in in_pieces(data, piece) for desc in descs_of(decoder, part)]
        assert found == expected

    @pytest.mark.usefixtures("_small")
    def test_skipped_bytes_have_no_limit(self) -> None:
        assert descs(b"$" + b"x" * 5000 + PING) == ["JSON parse error, stray '$'", "guest-ping"]


class TestEncoding:
    def test_nothing(self) -> None:
        assert encode_return(None) == [b'{"return": {}}\n']

    def test_a_constant_is_written_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        result = Constant({"a": [True]})
        for number, more in ((ABSENT, b""), (7, b', "id": 7')):
            assert encode_return(result, number) == [b'{"return": {"a": [true]}%s}\n' % more]
        monkeypatch.delattr(jsonwriter, "write")
        assert encode_return(result) == [b'{"return": {"a": [true]}}\n']

    @pytest.mark.parametrize(
        ("id", "text"),
        [
            (None, b"null"),
            (0, b"0"),
            (False, b"false"),
            ("", b'""'),
            ("\u00e9", rb'"\u00E9"'),
            (1.5, b"1.5"),
            (0.1, b"0.10000000000000001"),
            ([{"b": 1, "a": 2}], b'[{"b": 1, "a": 2}]'),
        ],
    )
    def test_the_id_comes_last(self, id: Any, text: bytes) -> None:
        assert encode_return(7, id) == [b'{"return": 7, "id": %s}\n' % text]
        assert encode_return(None, id) == [b'{"return": {}, "id": %s}\n' % text]
        wrong = encode_error(QgaError("no"), id)
        assert wrong == (b'{"error": {"class": "GenericError", "desc": "no"}, "id": %s}\n' % text)

    def test_the_class_of_an_error(self) -> None:
        assert encode_error(CommandNotFound("The command x has not been found")) == (
            b'{"error": {"class": "CommandNotFound", "desc": "The command x has not been found"}}\n'
        )

    def test_one_line_of_ascii(self) -> None:
        (line,) = encode_return({"a": "x\ny\u20ac\x7f"})
        assert line == b'{"return": {"a": "x\\ny\\u20AC\\u007F"}}\n'

    def test_floats(self) -> None:
        assert encode_return([0.5, 3.14], with_numbers=True) == [
            b'{"return": [0.5, 3.1400000000000001]}\n'
        ]

    def test_a_payload_stays_as_it_is(self) -> None:
        payload = Payload(bytes(LONG))
        parts = encode_return({"count": 3, "buf-b64": payload, "eof": True}, 1)
        assert parts == [
            b'{"return": {"count": 3, "buf-b64": "',
            payload,
            b'", "eof": true}, "id": 1}\n',
        ]

    @pytest.mark.parametrize(
        ("members", "text"),
        [
            (
                {"count": 3, "buf-b64": Payload(b"abc"), "eof": True},
                b'"count": 3, "buf-b64": "YWJj"',
            ),
            ({"a": Payload(b"o"), "b": Payload(b""), "c": True}, b'"a": "bw==", "b": "", "c"'),
            ({"a": '\x7f"', "b": Payload(b"o")}, b'"a": "\\u007F\\"", "b": "bw=="'),
        ],
    )
    def test_a_short_payload_is_part_of_one_piece(
        self, members: dict[str, Any], text: bytes
    ) -> None:
        [piece] = encode_return(members, 1)
        assert isinstance(piece, bytes)
        assert piece.startswith(b'{"return": {' + text)
        reply = json.loads(piece)
        assert reply == {"return": {**members, **_in_base64(members)}, "id": 1}

    def test_two_payloads(self) -> None:
        out, err = Payload(bytes(LONG)), Payload(bytes(LONG))
        parts = encode_return({"out-data": out, "err-data": err})
        assert parts == [b'{"return": {"out-data": "', out, b'", "err-data": "', err, b'"}}\n']


@pytest.mark.parametrize(
    "rest", [b'{"execute": "x"}\n', b'{"execute": "x"}\n{"execute": y}\n', b"{"]
)
def test_a_delimiter_in_the_same_piece_or_in_one_of_its_own(rest: bytes) -> None:
    whole, cut = Decoder(), Decoder()
    events = [*cut.receive(b"\n\xff"), *cut.receive(rest)]
    assert whole.receive(b"\n") == []
    assert repr(whole.receive(b"\xff" + rest)) == repr(events)
    assert whole.unfinished == cut.unfinished
