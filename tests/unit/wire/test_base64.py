"""Base64 is the same by every codec, and they are loaded at the first bulk."""

from __future__ import annotations

import binascii
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qga.wire import b64_ntop, base64
from qga.wire.lexer import has_control

pytestmark = pytest.mark.usefixtures("codec")

ALPHABET = st.sampled_from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")

ENCODERS = {
    "pybase64": "pybase64._pybase64",
    "b64_ntop": "qga.wire.b64_ntop",
    "binascii": "qga.wire.base64",
}
"""The module of each codec's encoder."""


def test_the_codec_is_the_one_that_was_asked_for(codec: str) -> None:
    base64.encode(b"some bytes")
    assert base64._Codec.encode.__module__ == ENCODERS[codec]
    assert (base64._Codec.module is not None) == (codec == "pybase64")


@given(st.binary(max_size=300))
def test_there_and_back(data: bytes) -> None:
    for kind in (bytes, bytearray, memoryview):
        text = base64.encode(kind(data))
        assert text == binascii.b2a_base64(data, newline=False)
    assert base64.decode(text.decode()) == data


@pytest.mark.parametrize(
    "text",
    [
        "YQ",
        "YQ=",
        "YQ==YQ==",
        "YW=j",
        "YQ== ",
        "YQ\0==",
        "Y-_=",
        "!",
        "Y===",
        "====",
        "\0===",
        "!===",
        "\0==",
        "\0=",
        "\u00e9",
    ],
)
def test_what_is_not_base64(text: str) -> None:
    with pytest.raises(ValueError):
        base64.decode(text)


@pytest.mark.parametrize("text", ["YQ==\n", "Y\nQ==", "\n\nYQ==", "YQ==\n\n"])
def test_line_ends_are_skipped(text: str) -> None:
    assert base64.decode(text) == b"a"


@given(st.lists(st.one_of(ALPHABET, ALPHABET, st.integers(0, 255)), max_size=60).map(bytes))
def test_control_characters_are_found(text: bytes) -> None:
    assert has_control(text) == any(byte < 0x20 or byte >= 0xFE for byte in text)


@pytest.mark.parametrize("control", [0, 0x0A, 0x1F, 0xFE, 0xFF])
def test_a_control_character_is_found_wherever_it_is(control: int) -> None:
    text = bytearray(b"Q" * 41)
    for at in range(len(text)):
        text[at] = control
        assert has_control(bytes(text))
        text[at] = ord("Q")
    assert not has_control(bytes(text))


def test_pybase64_is_loaded_at_the_first_bulk() -> None:
    program = (
        "import sys, qga.serving.output; from qga.wire import base64\n"
        "base64.encode(b'x' * (base64.BULK - 1)); print('pybase64' in sys.modules)\n"
        "base64.encode(b'x' * base64.BULK); print('pybase64' in sys.modules)\n"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "False\nTrue\n"


def test_without_its_extension_pybase64_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be binascii behind a regular expression."""
    import pybase64

    monkeypatch.setattr(pybase64, "get_version", lambda: "1.5.1 (C extension inactive)")
    assert base64._load() is None


def test_without_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(b64_ntop, "_LIBRARY", "libnone.so")
    assert b64_ntop.load() is None


def test_without_pybase64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pybase64", None)
    assert base64._load() is None
