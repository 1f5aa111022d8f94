"""Base64 in, and strings for system calls."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qga import Payload, QgaError, c_string, decode_base64
from qga.wire import payload

pytestmark = pytest.mark.usefixtures("codec")


@given(st.binary(max_size=200), st.integers(1, 80))
def test_what_was_encoded(data: bytes, width: int) -> None:
    text = base64.b64encode(data).decode()
    lines = "\n".join(text[at : at + width] for at in range(0, len(text), width))
    assert decode_base64(text) == data
    assert decode_base64(lines) == data
    assert decode_base64(lines + "\n") == data


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", b""),
        ("\n\n", b""),
        ("YQ==", b"a"),
        ("YWI=", b"ab"),
        ("YWJj", b"abc"),
        ("Y\nQ=\n=", b"a"),
        # An incomplete last group is dropped.
        ("Y", b""),
        ("YQ", b""),
        ("YQ=", b""),
        ("YWJjZA", b"abc"),
        ("YWJjZGU", b"abc"),
        # Data goes on after padding.
        ("YQ==YWJj", b"aabc"),
        ("YWI=YQ==", b"aba"),
        # Elsewhere `=` counts as zero bits.
        ("Y=Jj", base64.b64decode("YAJj")),
        ("====", b"\0"),
        ("=Q==", b"\x01"),
        ("Y===", b"`"),
        ("YQ=Q", b"a\x10"),
        ("A=B=", b"\0\0"),
    ],
)
def test_lenience(text: str, data: bytes) -> None:
    assert decode_base64(text) == data


@pytest.mark.parametrize(
    "text",
    [
        "YQ== ",
        " YQ==",
        "YQ\r\n==",
        "YQ\t==",
        "Y-_=",
        "YQ=\0=",
        "\u00e9",
        "YWJj\u20ac",
        "!",
        "\udc80",
    ],
)
def test_other_characters_are_refused(text: str) -> None:
    with pytest.raises(QgaError, match=r"^Base64 data contains invalid characters$"):
        decode_base64(text)


@given(st.text("AZaz09+/=\n", max_size=40))
@settings(max_examples=300)
def test_the_fast_decoder_reads_as_the_lenient_one(text: str) -> None:
    assert decode_base64(text) == payload._decode_leniently(text)


@given(st.binary(max_size=100))
def test_a_payload_knows_the_length_of_its_text(data: bytes) -> None:
    assert len(Payload(data)) == len(base64.b64encode(data))


def test_a_nul_for_a_system_call() -> None:
    assert c_string("/a\0b\u00e9") == b"/a\xc0\x80b\xc3\xa9"
