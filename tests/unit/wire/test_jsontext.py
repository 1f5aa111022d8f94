"""JSON as QEMU reads and writes it: one text, one value or one error."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import pytest

from qga.wire import jsontext, jsonwriter
from tests.unit.decoding import parse


def parse_error(raw: bytes) -> str:
    """The text of the error."""
    with pytest.raises(jsontext.ParseError) as error:
        parse(raw)
    prefix = "JSON parse error, "
    assert error.value.desc.startswith(prefix)
    return error.value.desc[len(prefix) :]


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"{}", {}),
        (b"[]", []),
        (b'{"a":[1,{"b":null}],"c":true}', {"a": [1, {"b": None}], "c": True}),
        (b" [ 1 , 2 ] ", [1, 2]),
        (b"{'a':'b'}", {"a": "b"}),
        (b"'it\\'s'", "it's"),
        (b'"it\\\'s"', "it's"),
        (b"'\"'", '"'),
        (b"false", False),
        (b"-0", 0),
        (b"9223372036854775807", 2**63 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"18446744073709551615", 2**64 - 1),
        (b"18446744073709551616", float(2**64)),
        (b"-9223372036854775809", float(-(2**63))),
        (b"1" + b"0" * 300, 1e300),
        (b"1.5", 1.5),
        (b"1e5", 1e5),
        (b"5e-324", 5e-324),
        (b"1e-400", 0.0),
        (b'"\\b\\f\\n\\r\\t\\"\\\\\\/"', '\b\f\n\r\t"\\/'),
        (b'"\\u0041\\u00e9\\u20AC"', "A\u00e9\u20ac"),
        (b'"\\u0000"', "\0"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"', "\u00e9\u20ac\U0001f600"),
        (b'"\xc0\x80"', "\0"),
        (b'"\x7f"', "\x7f"),
        (b'"\xef\xbf\xbd"', "\ufffd"),
        (b'"\\uFFFD\\uFDCF\\uFDF0"', "\ufffd\ufdcf\ufdf0"),
    ],
)
def test_values(raw: bytes, value: Any) -> None:
    assert parse(raw) == value
    assert type(parse(raw)) is type(value)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"{,}", "expecting key"),
        (b"{]", "expecting key"),
        (b"[1,]", "expecting value"),
        (b'{"a":1,}', "expecting key"),
        (b'{"a":}', "expecting value"),
        (b'{"a":1,"a":}', "expecting value"),
        (b"}", "expecting value"),
        (b":", "expecting value"),
        (b"[1 2]", "expected ',' or ']'"),
        (b"[1:2]", "expected ',' or ']'"),
        (b"[1}", "expected ',' or ']'"),
        (b'{"a":1 "b":2}', "expected ',' or '}'"),
        (b'{"a":1]', "expected ',' or '}'"),
        (b'{"a" 1}', "expecting ':'"),
        (b'{"a"}', "expecting ':'"),
        (b'{"a",1}', "expecting ':'"),
        (b"{1:2}", "expecting key"),
        (b"{1}", "expecting key"),
        (b"{{}:1}", "expecting key"),
        (b"{null:1}", "expecting key"),
        (b"{nope:1}", "expecting key"),
        (b"[truf]", "invalid keyword 'truf'"),
        (b'{"a":1,"a":2}', "duplicate key"),
        (b'{"a":1,"\\u0061":2}', "duplicate key"),
        (b'{"a":1,"a":2,3}', "duplicate key"),
        (b'{"a":{"b":1,"b":2}}', "duplicate key"),
        (b'{"a":1,"a":nope}', "invalid keyword 'nope'"),
        # The first one in reading order.
        (b'["\\x","\\u12"]', "invalid escape sequence in string"),
        (b'["\\u12","\\x"]', '\\u12" is not a valid Unicode character'),
        (b'{"\\x" 1}', "invalid escape sequence in string"),
        (b"[nope 1]", "invalid keyword 'nope'"),
        (b'"\\v"', "invalid escape sequence in string"),
        (b'"\\U0041"', "invalid escape sequence in string"),
        (b'"\\\xc3\xa9"', "invalid escape sequence in string"),
        (b'"\\u"', '\\u" is not a valid Unicode character'),
        (b'"\\u12G4"', "\\u12G4 is not a valid Unicode character"),
        (b'"\\u+123"', "\\u+123 is not a valid Unicode character"),
        (b"'\\u12'", "\\u12' is not a valid Unicode character"),
        (b'"\\u12\xc3\xa9"', "\\u12\u00e9 is not a valid Unicode character"),
        (b'"\\u123\xc3\xa9"', "\\u123\ufffd is not a valid Unicode character"),
        (b'"\\ud83d"', "\\ud83d is not a valid Unicode character"),
        (b'"\\ude00"', "\\ude00 is not a valid Unicode character"),
        (b'"\\ud83d\\u0041"', "\\ud83d is not a valid Unicode character"),
        (b'"\\ud83d\\ud83d"', "\\ud83d is not a valid Unicode character"),
        (b'"\\ud83d\\\\ude00"', "\\ud83d is not a valid Unicode character"),
        (b'"\\ud83f\\udfff"', "\\ud83f\\udfff is not a valid Unicode character"),
        (b'"\\uFFFE"', "\\uFFFE is not a valid Unicode character"),
        (b'"\\ufdd0"', "\\ufdd0 is not a valid Unicode character"),
        (b'"\x80"', "invalid UTF-8 sequence in string"),
        (b'"\xc3"', "invalid UTF-8 sequence in string"),
        (b'"\xed\xa0\x80"', "invalid UTF-8 sequence in string"),
        (b'"\xc1\xbf"', "invalid UTF-8 sequence in string"),
        (b'"\xef\xbf\xbe"', "invalid UTF-8 sequence in string"),
        (b'"\xf4\x90\x80\x80"', "invalid UTF-8 sequence in string"),
        (b'"\xc3\\x"', "invalid UTF-8 sequence in string"),
        (b'"\\x\xc3"', "invalid escape sequence in string"),
        (b"1e400", "number out of range '1e400'"),
        (b"[-1.8e308]", "number out of range '-1.8e308'"),
    ],
)
def test_errors(raw: bytes, text: str) -> None:
    assert parse_error(raw) == text


def test_the_text_of_an_error_is_cut_to_1023_bytes() -> None:
    shown = parse_error(b"a" * 5000)
    assert shown == "invalid keyword '" + "a" * 1006
    assert len(shown) == 1023
    assert parse_error(b"a" * 1005) == "invalid keyword '" + "a" * 1005 + "'"


def test_a_stray_token_is_shown_up_to_a_nul() -> None:
    assert jsontext.stray(b'"ab\0').desc == "JSON parse error, stray '\"ab'"
    assert jsontext.stray(b"\0").desc == "JSON parse error, stray ''"


@pytest.mark.parametrize("length", [1500, 100_000])
def test_of_a_long_stray_token_as_many_bytes_are_shown(length: int) -> None:
    desc = jsontext.stray(b'"' + b"a" * length).desc
    assert desc == "JSON parse error, stray '\"" + "a" * 1015
    desc = jsontext.stray("'{}".format("\u00e9" * length).encode()).desc
    assert desc == "JSON parse error, stray ''" + "\u00e9" * 507 + "\ufffd"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("61", "a"),
        ("80", "\ufffd"),
        ("8080", "\ufffd\ufffd"),
        ("c0", "\ufffd"),
        ("c080", "\0"),
        ("c081", "\ufffd"),
        ("c3a9", "\u00e9"),
        ("c378", "\ufffdx"),
        ("c38080", "\u00c0\ufffd"),
        ("e08080", "\ufffd"),
        ("e282", "\ufffd"),
        ("e28278", "\ufffdx"),
        ("e2e282ac", "\ufffd\u20ac"),
        ("e282c3a9", "\ufffd\u00e9"),
        ("eda080", "\ufffd"),
        ("eda0bdedb880", "\ufffd\ufffd"),
        ("efbfbe", "\ufffd"),
        ("efb790", "\ufffd"),
        ("f09f98", "\ufffd"),
        ("f09f9880", "\U0001f600"),
        ("f09fbfbe", "\ufffd"),
        ("f09f789880", "\ufffdx\ufffd\ufffd"),
        ("f4908080", "\ufffd"),
        ("f7bfbfbf", "\ufffd"),
        ("f888808080", "\ufffd"),
        ("f88880808080", "\ufffd\ufffd"),
        ("fd", "\ufffd"),
        ("fdbfbfbfbfbf", "\ufffd"),
        ("feff", "\ufffd\ufffd"),
        ("c280", "\x80"),
        ("c27f", "\ufffd\x7f"),
    ],
)
def test_bytes_that_are_shown_leniently(raw: str, text: str) -> None:
    assert jsontext.decode_leniently(bytes.fromhex(raw)) == text
    assert jsontext.decode_leniently(b"<" + bytes.fromhex(raw) + b">") == f"<{text}>"


@pytest.mark.parametrize("opener", [b"[", b'{"a":'])
def test_a_thousand_levels(opener: bytes) -> None:
    closer = b"]" if opener == b"[" else b"}"
    raw = opener * jsontext.MAX_DEPTH + b"1" + closer * jsontext.MAX_DEPTH
    value = parse(raw)
    levels = 0
    while value != 1:
        value = value[0] if isinstance(value, list) else value["a"]
        levels += 1
    assert levels == jsontext.MAX_DEPTH


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1,"a":2}',
        b"[0e1]",
        b"[-0E1]",
        b"[1e999]",
        b"[NaN]",
        b"[Infinity]",
        b"[1234567890123456789]",
    ],
)
def test_the_plain_reader_leaves_what_it_would_read_otherwise(raw: bytes) -> None:
    with pytest.raises(ValueError):
        jsontext.read_plainly(raw.decode(), 0)


@pytest.mark.parametrize(
    "raw",
    [
        '"\u00e9"'.encode(),
        b'"\\ud83d"',
        b'"\\uDFFF"',
        b'"\\uFFFE"',
        b'"\\ufdd0"',
    ],
)
def test_what_is_not_plain(raw: bytes) -> None:
    assert not jsontext.is_plain(raw)


def test_what_may_be_too_deep() -> None:
    assert jsontext.may_be_too_deep(b"[" * 1000 + b"{" * 25)
    assert not jsontext.may_be_too_deep(b"[" * 1000 + b"{" * 24 + b"]" * 2000)


def test_what_is_plain() -> None:
    assert jsontext.is_plain(b'{"a":"\\u0041\\u00e9"}' + b"[" * 1000)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (-5, "-5"),
        (2**64 - 1, "18446744073709551615"),
        ("", '""'),
        ('a"b\\c/', r'"a\"b\\c/"'),
        ("\b\f\n\r\t", r'"\b\f\n\r\t"'),
        ("\0\x0b\x1f\x7f", r'"\u0000\u000B\u001F\u007F"'),
        ("\u00e9\u20ac\uabcd", r'"\u00E9\u20AC\uABCD"'),
        ("\U0001f600", r'"\uD83D\uDE00"'),
        ("\udc80", r'"\uFFFD"'),  # a byte that was no UTF-8
        ("a\\u00e9", r'"a\\u00e9"'),  # nothing of it is an escape
        ([], "[]"),
        ({}, "{}"),
        ([1, [2, {}]], "[1, [2, {}]]"),
        ({"b": 1, "a": [None, "x"]}, '{"b": 1, "a": [null, "x"]}'),
        ({"\u00e9": {"\x7f": []}}, r'{"\u00E9": {"\u007F": []}}'),
    ],
)
def test_writing(value: Any, text: str) -> None:
    assert jsonwriter.write(value) == text
    assert jsonwriter.write_exactly(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.10000000000000001"),
        (1.0, "1"),
        (-0.0, "-0"),
        (1e16, "10000000000000000"),
        (1e17, "1e+17"),
        (1e-5, "1.0000000000000001e-05"),
        (1e-4, "0.0001"),
        (1e100, "1e+100"),
        (5e-324, "4.9406564584124654e-324"),
        (math.pi, "3.1415926535897931"),
        ([1.5, {"a": 2.5}], '[1.5, {"a": 2.5}]'),
    ],
)
def test_writing_floats(value: Any, text: str) -> None:
    assert jsonwriter.write_exactly(value) == text


def test_writing_a_thousand_levels() -> None:
    value: Any = {}
    for _ in range(jsontext.MAX_DEPTH):
        value = [value]
    assert jsonwriter.write_exactly(value) == "[" * 1024 + "{}" + "]" * 1024


NOT_UTF8 = """
    80 8080 feff c080 c1bf e282 e28278 f09f98 eda080 eda0bdedb880 f4908080 f88880808080 c4e3bac3
    6772fcdf e2e282ac f09f988080 f09fbfbf f48fbfbe f09fbfbd efb790 efbfbf
"""


@pytest.mark.parametrize("digits", NOT_UTF8.split())
def test_writing_a_name_that_is_not_utf8(digits: str) -> None:
    """As QEMU's agent: one U+FFFD for each sequence, however many bytes it has."""
    raw = bytes.fromhex(digits)
    reported = jsontext.decode_leniently(raw)
    assert json.loads(jsonwriter.write(os.fsdecode(raw))) == reported
    assert jsonwriter.write(os.fsdecode(raw)) == jsonwriter.write(reported)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("stray '\ufffd'", r'"stray ' + "'" + r"\uFFFD" + "'" + '"'),
        ("\\ufffd \ufffd", r'"\\ufffd \uFFFD"'),
        ("\ufffd\u00e9", r'"\uFFFD\u00E9"'),
        ("\ufffd\x7f", r'"\uFFFD\u007F"'),
        ('\ufffd"', r'"\uFFFD\""'),
    ],
)
def test_writing_the_replacement_character(value: str, text: str) -> None:
    assert jsonwriter.write(value) == text


def test_the_reader_of_python_3_15_finds_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks for `array_hook`; without it, the agent does not start."""
    seen = []

    def make_scanner(context: Any) -> Any:
        seen.append(context.array_hook)
        return lambda text, position: (text, position)

    monkeypatch.setattr(jsontext, "make_scanner", make_scanner)
    assert jsontext.reader()("[]", 0) == ("[]", 0)
    assert seen == [None]
