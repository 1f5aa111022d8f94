"""A signal that comes while Python takes a lock ends qgactl as any other signal does."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest
import typer

from qga.ctl import app
from qga.ctl.main import INTERRUPTED


@pytest.fixture(autouse=True)
def sigpipe() -> Iterator[None]:
    """qgactl gives it its default, which a process of many tests cannot have."""
    before = signal.getsignal(signal.SIGPIPE)
    yield
    signal.signal(signal.SIGPIPE, before)


@pytest.mark.parametrize(
    ("raised", "status"),
    [(KeyboardInterrupt(), INTERRUPTED), (typer.Exit(143), 143), (ValueError(), app.FAILED)],
    ids=["^C", "SIGTERM of a proxy", "no signal"],
)
def test_an_error_of_a_lock(
    raised: BaseException, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(**_: object) -> NoReturn:
        try:
            raise raised
        finally:
            raise RuntimeError("release unlocked lock")

    def command_of(_: object) -> Callable[..., NoReturn]:
        return command

    monkeypatch.setattr(app, "command_of", command_of)
    monkeypatch.setattr(app, "report_failure", lambda _reason: app.FAILED)
    monkeypatch.setattr(app, "open_standard_streams", lambda: None)
    monkeypatch.setattr(sys, "argv", ["qgactl"])
    assert app.run() == status
