"""The escape to leave a terminal of the guest."""

from __future__ import annotations

import pytest

from qga.ctl.terminal import Escapes


@pytest.mark.parametrize(
    ("typed", "passed", "leaving"),
    [
        (b"ls ~\r", b"ls ~\r", False),
        (b"~.", b"", True),
        (b"ls\r~.more", b"ls\r", True),
        (b"ls\n~.", b"ls\n", True),
        (b"ls~.\r", b"ls~.\r", False),
        (b"~~.\r", b"~.\r", False),
        (b"~x.\r", b"~x.\r", False),
        (b"~\r~.", b"~\r", True),
    ],
)
def test_escapes(typed: bytes, passed: bytes, leaving: bool) -> None:
    whole = Escapes()
    assert (whole.passed(typed), whole.leaving) == (passed, leaving)
    bytewise = Escapes()
    kept = b""
    for byte in typed:
        kept += b"" if bytewise.leaving else bytewise.passed(bytes([byte]))
    assert (kept, bytewise.leaving) == (passed, leaving)
