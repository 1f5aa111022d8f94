"""Which way a shutdown takes, with stand-ins for systemctl and for what would end the machine."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from qga import QgaError

power: Any = import_module("qga.commands.power")

REFUSES = 'echo "Call to PowerOff failed: Access denied" >&2; exit 1'


class Stage:
    """A guest with programs of its own; `ways` lists what was tried."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.calls = folder / "calls"
        self.calls.touch()
        self.signals: list[str] = []

    def program(self, name: str, text: str) -> None:
        path = self.programs / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.calls}\n{text}\n')
        path.chmod(0o755)

    @property
    def ways(self) -> list[str]:
        return [*self.calls.read_text().splitlines(), *self.signals]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    monkeypatch.setenv("PATH", str(stage.programs))
    monkeypatch.setattr(power, "_SYSTEMD_RUNS", str(tmp_path))

    def tell_init(mode: str) -> bool:
        stage.signals.append(f"init {mode}")
        return True

    monkeypatch.setattr(power, "_tell_init", tell_init)
    yield stage


def systemctl(state: str, otherwise: str) -> str:
    return f'[ "$1" = is-system-running ] && {{ echo {state}; exit 1; }}\n{otherwise}'


@pytest.mark.parametrize("state", ["running", "degraded", "starting", "stopping"])
@pytest.mark.parametrize("mode", ["powerdown", "reboot", "halt"])
def test_what_systemd_refuses_is_refused_with_its_reason(
    stage: Stage, mode: str, state: str
) -> None:
    stage.program("systemctl", systemctl(state, REFUSES))
    for name in ("poweroff", "reboot", "halt", "shutdown"):
        stage.program(name, "")
    with pytest.raises(QgaError) as caught:
        power._shut_down(mode, force=False)
    verb = "poweroff" if mode == "powerdown" else mode
    assert str(caught.value) == (
        f"systemctl {verb} failed with status 1: Call to PowerOff failed: Access denied "
        "(systemd-inhibit --list in the guest shows who holds a lock)"
    )
    assert stage.ways == [f"systemctl {verb}", "systemctl is-system-running"]


@pytest.mark.parametrize("state", ["offline", "unknown", ""])
def test_where_nobody_answers_init_gets_a_signal(stage: Stage, state: str) -> None:
    stage.program("systemctl", systemctl(state, "exit 1"))
    stage.program("poweroff", "exit 1")
    power._shut_down("powerdown", force=False)
    assert stage.ways[-1] == "init powerdown"
    assert "poweroff " in stage.ways


def test_where_no_program_is_there_init_gets_a_signal(stage: Stage) -> None:
    power._shut_down("halt", force=False)
    assert stage.ways == ["init halt"]


def test_who_insists_has_systemd_ignore_locks(stage: Stage) -> None:
    stage.program("systemctl", '[ "$2" = -i ]')
    power._shut_down("reboot", force=True)
    assert stage.ways == ["systemctl reboot -i"]


def test_who_insists_goes_past_a_systemd_that_refuses(stage: Stage) -> None:
    stage.program("systemctl", systemctl("running", REFUSES))
    power._shut_down("reboot", force=True)
    assert stage.ways == ["systemctl reboot -i", "init reboot"]


@pytest.mark.parametrize("mode", ["ram", "disk", "hybrid"])
def test_sleep_that_systemd_refuses(
    stage: Stage, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.program("systemctl", systemctl("running", REFUSES))
    monkeypatch.setattr(power, "_words", lambda path: ["mem", "disk", "suspend"])
    monkeypatch.setattr(power, "_has_swap", lambda: True)
    monkeypatch.setattr(power, "_write", lambda path, word: stage.signals.append(word))
    with pytest.raises(QgaError, match="Access denied"):
        power._suspend(mode)
    assert stage.signals == []


@pytest.mark.parametrize("mode", ["disk", "hybrid"])
def test_an_image_of_memory_needs_swap_space(
    stage: Stage, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.program("systemctl", "")
    monkeypatch.setattr(power, "_words", lambda path: ["mem", "disk", "suspend"])
    monkeypatch.setattr(power, "_has_swap", lambda: False)
    with pytest.raises(QgaError, match="there is no swap space"):
        power._suspend(mode)
    assert stage.ways == []
