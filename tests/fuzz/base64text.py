"""Any text as base64, and any bytes there and back.

- What strict base64 is decodes to what Python's decoder makes of it.
- Anything else decodes to something, or is refused with a text.
- Bytes survive the way in and the way out, with newlines in the text as Proxmox VE has them.
"""

from __future__ import annotations

import base64
import re

from qga.errors import QgaError
from qga.wire.payload import Payload, c_string, decode_base64

_STRICT = re.compile("(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_ALPHABET = re.compile("[A-Za-z0-9+/=\n]*")


def test_one(data: bytes) -> None:
    check_text(data.decode("utf-8", "replace"))
    encoded = base64.b64encode(data).decode("ascii")
    assert len(Payload(data)) == len(encoded)
    assert decode_base64(encoded) == data
    assert decode_base64(base64.encodebytes(data).decode("ascii")) == data


def check_text(text: str) -> None:
    raw = c_string(text)
    assert b"\0" not in raw
    assert raw.replace(b"\xc0\x80", b"\0").decode() == text
    try:
        decoded = decode_base64(text)
    except QgaError as refusal:
        assert refusal.desc == "Base64 data contains invalid characters"
        assert not _ALPHABET.fullmatch(text), text
        return
    assert _ALPHABET.fullmatch(text), text
    if _STRICT.fullmatch(text):
        assert decoded == base64.b64decode(text, validate=True)
