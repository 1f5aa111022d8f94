"""What --doctor has found: the words that it, and the `diagnose` of a command group, use."""

from __future__ import annotations

from typing import Literal, NamedTuple

Status = Literal["ok", "warning", "failed"]


class Finding(NamedTuple):
    """One thing that was looked at.

    check: what it belongs to, in a word. advice: what to try where it is not ok.
    """

    check: str
    status: Status
    text: str
    advice: str = ""


def ok(check: str, text: str) -> Finding:
    return Finding(check, "ok", text)


def warning(check: str, text: str, advice: str) -> Finding:
    """The host is served, but not as well as it could be."""
    return Finding(check, "warning", text, advice)


def failed(check: str, text: str, advice: str) -> Finding:
    """The host is not served, or some commands fail."""
    return Finding(check, "failed", text, advice)
