"""Findings of --doctor, and of the `do_diagnose` of a command group."""

from __future__ import annotations

from typing import Literal, NamedTuple

Status = Literal["ok", "warning", "failed"]


class Finding(NamedTuple):
    """The result of one check.

    check: the area it belongs to, in a word. advice: what to try if the status is not ok.
    """

    check: str
    status: Status
    text: str
    advice: str = ""


def ok(check: str, text: str) -> Finding:
    return Finding(check, "ok", text)


def warning(check: str, text: str, advice: str) -> Finding:
    """The host is served, but something should be improved."""
    return Finding(check, "warning", text, advice)


def failed(check: str, text: str, advice: str) -> Finding:
    """The host is not served, or some commands fail."""
    return Finding(check, "failed", text, advice)
