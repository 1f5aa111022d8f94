"""A program that its user replaces while the agent looks at it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qga.programs import spawn
from qga.settings import trust


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Path]:
    """Opening one can wait for ever, and opening a device, such as a watchdog, has an effect."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    os.write(end, b"untouched")
    yield path
    assert os.read(end, 100) == b"untouched"
    os.close(end)


def test_no_fifo_is_read_for_an_interpreter(fifo: Path) -> None:
    assert trust.first_line(str(fifo)) == b""


def test_a_program_that_becomes_a_fifo_is_not_opened(
    fifo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")

    class Replaced:
        """The module `os`, with a program that is replaced whenever something was asked for."""

        def __getattr__(self, name: str) -> Any:
            value = getattr(os, name)
            return replacing(value) if name in ("stat", "fstat", "open") else value

    def replacing(call: Callable[..., Any]) -> Callable[..., Any]:
        def replaced(*args: Any, **options: Any) -> Any:
            result = call(*args, **options)
            if not stat.S_ISFIFO(os.lstat(program).st_mode):
                os.replace(fifo, program)
            return result

        return replaced

    monkeypatch.setattr(spawn, "os", Replaced())
    spawn._read_beforehand(os.fsencode(program))
