"""Tokens in bytes: the states, the cuts, and the length that a token may have."""

from __future__ import annotations

import string

import pytest

from qga.wire import lexer
from qga.wire.lexer import FLOAT, INTEGER, KEYWORD, OVERSIZE, STRAY, STRING, Lexer
from tests.unit.decoding import in_pieces

NAMES = {
    STRING: "string",
    INTEGER: "integer",
    FLOAT: "float",
    KEYWORD: "keyword",
    STRAY: "stray",
    OVERSIZE: "oversize",
}


def tokens(data: bytes, piece: int = 1 << 20) -> list[tuple[str, bytes]]:
    """Kind and bytes of each token, the input fed in pieces of that size."""
    found = []
    scanner, position = Lexer(), 0
    for part in in_pieces(data, piece):
        for kind, start, end in scanner.scan(part):
            name = NAMES.get(kind) or chr(kind)
            found.append((name, data[position + start : position + end]))
        position += len(part)
    return found


def kinds(data: bytes) -> list[str]:
    return [f"{name} {text.decode('latin-1')}" for name, text in tokens(data)]


TABLE = [
    (b" \t\r\n", []),
    (b"{}[],:", ["{ {", "} }", "[ [", "] ]", ", ,", ": :"]),
    (b'"a b"', ['string "a b"']),
    (b"'a\"b'", ["string 'a\"b'"]),
    (b'"a\'b"', ['string "a\'b"']),
    (b'"a\\"b"', ['string "a\\"b"']),
    (b"'a\\'b'", ["string 'a\\'b'"]),
    (b'"a\\\\"1 ', ['string "a\\\\"', "integer 1"]),
    (b'"\\u12"', ['string "\\u12"']),
    (b'"\x7f\x80\xfd"', ['string "\x7f\x80\xfd"']),
    (b'"a\n', ['stray "a\n']),
    (b'"a\t', ['stray "a\t']),
    (b'"a\x00', ['stray "a\x00']),
    (b'"a\xfe', ['stray "a\xfe']),
    (b'"a\xff', ['stray "a\xff']),
    (b'"a\\\n', ['stray "a\\\n']),
    (b'"a\\\xff', ['stray "a\\\xff']),
    (b'"a\\\x80"', ['string "a\\\x80"']),
    (b"0 ", ["integer 0"]),
    (b"-0,", ["integer -0", ", ,"]),
    (b"-12]", ["integer -12", "] ]"]),
    (b"1-1 ", ["integer 1", "integer -1"]),
    (b'1"x"', ["integer 1", 'string "x"']),
    (b"1a ", ["integer 1", "keyword a"]),
    (b"1.5 ", ["float 1.5"]),
    (b"0.0e5 ", ["float 0.0e5"]),
    (b"1e5 ", ["float 1e5"]),
    (b"1E+05 ", ["float 1E+05"]),
    (b"-1.5e-3:", ["float -1.5e-3", ": :"]),
    (b"0e1 ", ["integer 0", "keyword e", "integer 1"]),
    (b"1.5.", ["float 1.5", "stray ."]),
    (b"00", ["stray 00"]),
    (b"-01", ["stray -01"]),
    (b"-a", ["stray -a"]),
    (b"-{", ["stray -{"]),
    (b"1.}", ["stray 1.}"]),
    (b"1.e", ["stray 1.e"]),
    (b"1e,", ["stray 1e,"]),
    (b"1e+x", ["stray 1e+x"]),
    (b"true]", ["keyword true", "] ]"]),
    (b"tRue{", ["keyword t", "stray R", "{ {"]),
    (b"true1 ", ["keyword true", "integer 1"]),
    # After a stray: everything is skipped, strings too, up to a byte that begins anew.
    (b'$abc "x" 1 {', ["stray $", "{ {"]),
    (b"$\t1 \x7f\x80\xfd\n1 ", ["stray $", "integer 1"]),
    (b"$x\x001", ["stray $", "stray \x00"]),
    (b"$x,", ["stray $", ", ,"]),
    (b"$x:", ["stray $", ": :"]),
    (b"$x\xfe", ["stray $", "stray \xfe"]),
    (b"\xff\xff", ["stray \xff", "stray \xff"]),
    (b'\xff"x"{', ["stray \xff", "{ {"]),
    (b"\xc3\xa9{", ["stray \xc3", "{ {"]),
]


@pytest.mark.parametrize(("data", "expected"), TABLE)
def test_tokens(data: bytes, expected: list[str]) -> None:
    assert kinds(data) == expected


def test_pieces_of_one_byte_change_nothing() -> None:
    for data, _ in TABLE:
        assert tokens(data, piece=1) == tokens(data)


def test_every_byte_that_may_begin_a_token() -> None:
    for byte in range(256):
        found = [kind for kind, _ in tokens(bytes([byte, ord("\n")]))]
        assert found == expected_at_the_beginning(chr(byte)), f"byte {byte:02x}"


def expected_at_the_beginning(character: str) -> list[str]:
    """Tokens of the character and a newline, which makes a stray of a quote or a minus."""
    if character in " \t\r\n":
        return []
    if character in "{}[],:":
        return [character]
    if character in string.ascii_lowercase:
        return ["keyword"]
    return ["integer"] if character in string.digits else ["stray"]


def test_a_token_of_earlier_pieces_has_a_negative_start() -> None:
    scanner = Lexer()
    assert list(scanner.scan(b"[tr")) == [(ord("["), 0, 1)]
    assert scanner.unfinished == 2
    assert list(scanner.scan(b"u")) == []
    assert scanner.unfinished == 3
    assert list(scanner.scan(b"e,")) == [(KEYWORD, -3, 1), (ord(","), 1, 2)]
    assert scanner.unfinished == 0


def test_a_number_that_a_later_piece_ends_at_its_first_byte() -> None:
    scanner = Lexer()
    assert list(scanner.scan(b"12")) == []
    assert list(scanner.scan(b" ")) == [(INTEGER, -2, 0)]


@pytest.mark.parametrize(
    ("data", "rests"),
    [(b"", True), (b"{ ", True), (b'"a', False), (b"1", False), (b"$", False), (b"$\n", True)],
)
def test_at_rest(data: bytes, rests: bool) -> None:
    scanner = Lexer()
    list(scanner.scan(data))
    assert scanner.at_rest is rests


class TestLimit:
    @pytest.fixture(autouse=True)
    def _eight_bytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lexer, "MAX_TOKEN", 8)

    @pytest.mark.parametrize("piece", [1, 3, 8, 9, 100])
    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (b'"aaaaaa" ', ['string "aaaaaa"']),
            (b'"aaaaaaa', []),  # eight bytes may stay unfinished
            (b'"aaaaaaaa', ['oversize "aaaaaaaa']),
            # What comes after it begins a token.
            (b'"aaaaaaaabb ', ['oversize "aaaaaaaa', "keyword bb"]),
            (b'"aaaaaaaa\n', ['oversize "aaaaaaaa']),
            (b"123456789{", ["oversize 123456789", "{ {"]),
            (b"12345678{", ["integer 12345678", "{ {"]),
            (b"abcdefghi1 ", ["oversize abcdefghi", "integer 1"]),
            (b"1.2345678 ", ["oversize 1.2345678"]),
            (b'"aaaaaa\\"', ['oversize "aaaaaa\\"']),
            (b'{"aaaaaaaa', ["{ {", 'oversize "aaaaaaaa']),
        ],
    )
    def test_an_unfinished_token(self, data: bytes, expected: list[str], piece: int) -> None:
        found = [f"{name} {text.decode()}" for name, text in tokens(data, piece)]
        assert found == expected

    @pytest.mark.parametrize("piece", [1, 7, 1000])
    def test_white_space_and_what_is_skipped_have_none(self, piece: int) -> None:
        data = b" " * 500 + b"$" + b"x" * 500 + b"\n1 "
        assert [text for _, text in tokens(data, piece)] == [b"$", b"1"]

    @pytest.mark.parametrize("piece", [1, 3, 9, 100])
    def test_a_token_that_ends_with_the_byte_too_many_is_whole(self, piece: int) -> None:
        assert tokens(b'"aaaaaaa"1 ', piece) == [("string", b'"aaaaaaa"'), ("integer", b"1")]
