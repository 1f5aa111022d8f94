"""Signals that end or stop qgactl: it leaves nothing behind, and the terminal as it was."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.agent_process import wait_for
from tests.integration.client_agents import running
from tests.integration.qgactl_process import ENDING, QGACTL, environment
from tests.integration.terminals import Terminal

# A shell with job control, as one that a user types into.
JOB = 'set -m; "$@"; echo "stopped $?"; read -r _; fg >/dev/null; echo "ended $?"'
STOPPED = f"stopped {128 + signal.SIGTSTP}\r\n"

ENTER, LEAVE, SHOW_CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running("ours", tmp_path_factory.mktemp("agent")) as address:
        yield address


def job(address: str, *argv: str) -> Terminal:
    variables = {**environment(address), "TERM": "xterm"}
    return Terminal(["sh", "-c", JOB, "sh", *QGACTL, *argv], variables)


@pytest.mark.parametrize("number", ENDING)
def test_a_forward_removes_its_socket(address: str, tmp_path: Path, number: int) -> None:
    path = tmp_path / "socket"
    command = [*QGACTL, "forward", f"{path}:/nonexistent"]
    with subprocess.Popen(command, env=environment(address), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert path.is_socket()
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    assert not path.exists()


def test_top_gives_the_terminal_back_while_it_is_stopped(address: str) -> None:
    with job(address, "top", "--interval", "3600") as screen:
        screen.expect(ENTER)
        screen.expect("q quit")
        screen.type("\x1a")
        assert SHOW_CURSOR in (left := screen.expect(STOPPED))
        assert LEAVE in left
        assert screen.is_as_before
        screen.type("\n")
        screen.expect(ENTER)
        screen.expect("q quit")  # at once, not after the interval
        screen.type("q")
        assert LEAVE in screen.expect("ended 0\r\n")
        assert screen.is_as_before


@pytest.mark.parametrize("number", [*ENDING, signal.SIGTSTP])
def test_top_gives_it_back_when_a_signal_comes_while_it_draws(address: str, number: int) -> None:
    with job(address, "top", "--interval", "3600") as screen:
        screen.resize(200, 400)  # more than the terminal takes before somebody reads
        screen.expect(ENTER)
        pid = child_of(screen.process.pid)
        wait_for(lambda: Path(f"/proc/{pid}/wchan").read_text() == "wait_woken", "a full terminal")
        os.kill(pid, number)
        if number == signal.SIGTSTP:
            assert LEAVE in screen.expect(STOPPED)
            assert screen.is_as_before
            screen.type("\n")
            screen.expect("q quit")
            screen.type("q")
            assert LEAVE in screen.expect("ended 0\r\n")
        else:
            assert LEAVE in screen.expect("stopped 0\r\n")
        assert screen.is_as_before


def test_so_does_a_shell_that_is_stopped_from_outside(address: str) -> None:
    """^Z itself goes to the guest."""
    script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.1; done"
    with job(address, "shell", "--", "sh", "-c", script) as screen:
        screen.expect("ready")
        os.kill(child_of(screen.process.pid), signal.SIGTSTP)
        screen.expect(STOPPED)
        assert screen.is_as_before
        screen.resize(40, 120)
        screen.type("\n")
        screen.expect("40 120\r\n")
        screen.type("\r~.")
        screen.expect(f"ended {128 + signal.SIGHUP}\r\n")
        assert screen.is_as_before


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
