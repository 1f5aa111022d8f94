"""Passwords that are typed."""

from __future__ import annotations

import sys

import pytest
import typer

from qga.ctl import accounts


@pytest.mark.parametrize("typed", [b"gr\xfc\xdfe".decode(errors="surrogateescape"), None])
def test_a_password_that_is_not_utf8(monkeypatch: pytest.MonkeyPatch, typed: str | None) -> None:
    """What a terminal of another encoding sends; None: the prompt itself cannot decode it."""

    def prompt(*_: object, **__: object) -> str:
        return b"\xfc".decode() if typed is None else typed

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(typer, "prompt", prompt)
    with pytest.raises(typer.BadParameter, match="is not UTF-8 text; use --stdin"):
        accounts.ask_password(crypted=False)
