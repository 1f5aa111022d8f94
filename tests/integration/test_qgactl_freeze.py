"""qgactl freeze: the guest is thawed whatever happens to the program or to qgactl."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.qgactl_process import ON_A_TERMINAL, QGACTL, environment, qgactl
from tests.unit.client_peer import LATE, Filesystems, Peer, Start
from tests.unit.conftest import start as start

PATIENCE = 30.0


class Stage:
    """A guest with filesystems, and qgactl with a program that waits until the test ends it."""

    def __init__(self, guest: Filesystems, peer: Peer, folder: Path) -> None:
        self.guest, self.peer = guest, peer
        self.fifo = folder / "fifo"
        os.mkfifo(self.fifo)

    def freeze(self, *argv: str, start: Any = (), **streams: Any) -> subprocess.Popen[bytes]:
        whole = [*start, *QGACTL, "freeze", "--", *argv]
        return subprocess.Popen(whole, env=environment(self.peer.address), **streams)

    def freeze_and_wait(self, **streams: Any) -> tuple[subprocess.Popen[bytes], int]:
        """Returns when the program is running. It exits when the descriptor is closed."""
        process = self.freeze("cat", str(self.fifo), **streams)
        return process, os.open(self.fifo, os.O_WRONLY)

    def commands(self) -> list[str]:
        return [request["execute"].rpartition("-")[2] for request in self.peer.requests]


@pytest.fixture
def stage(start: Start, tmp_path: Path) -> Stage:
    guest = Filesystems()
    return Stage(guest, start(guest.handlers), tmp_path)


def wait_until(condition: Any, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_a_program_runs_while_the_guest_is_frozen(stage: Stage) -> None:
    process, end = stage.freeze_and_wait(stderr=subprocess.PIPE)
    assert stage.guest.frozen == 2
    os.close(end)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stage.guest.frozen) == (0, 0)
    assert err.decode() == (f"qgactl: {stage.peer.address}: 2 filesystems frozen, 2 thawed\n")


def test_the_exit_status_and_the_output_are_those_of_the_program(stage: Stage) -> None:
    argv = ("sh", "-c", "echo out; echo err >&2; exit 7")
    status, out, err = qgactl("freeze", "--", *argv, address=stage.peer.address)
    assert (status, out, err.splitlines()[0]) == (7, "out\n", "err")
    status, out, _ = qgactl("--json", "freeze", "--", "true", address=stage.peer.address)
    assert (status, json.loads(out)) == (0, {"frozen": 2, "thawed": 2, "status": 0})
    assert qgactl("freeze", "--", "sh", "-c", "kill -9 $$", address=stage.peer.address)[0] == 137
    assert stage.commands() == ["freeze", "status", "thaw"] * 3


def test_the_program_has_the_signals_of_its_caller(stage: Stage) -> None:
    """It ignores ^Z, which would stop it while the guest is frozen, and nothing else."""
    grep = ("grep", "^Sig[IB]", "/proc/self/status")
    before = subprocess.run(grep, capture_output=True, text=True, check=True).stdout
    blocked, ignored = (int(line.split()[1], 16) for line in before.splitlines())
    _, out, _ = qgactl("freeze", "--", *grep, address=stage.peer.address)
    expected = [blocked, ignored | 1 << (signal.SIGTSTP - 1)]
    assert [int(line.split()[1], 16) for line in out.splitlines()] == expected


def test_some_filesystems_only(stage: Stage) -> None:
    stage.peer.handlers["guest-fsfreeze-freeze-list"] = stage.guest.freeze
    stage.peer.handlers["guest-get-fsinfo"] = lambda _: [
        {"name": path, "mountpoint": path, "type": "xfs", "disk": []} for path in ("/a", "/b")
    ]
    arguments = ("--mount", "/a", "--mount", "/b", "--", "true")
    assert qgactl("freeze", *arguments, address=stage.peer.address)[0] == 0
    assert stage.peer.requests[1]["arguments"] == {"mountpoints": ["/a", "/b"]}


ENDING = [
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2),
    *(signal.SIGALRM, signal.SIGPIPE, signal.SIGXCPU, signal.SIGPROF, signal.SIGIO, signal.SIGPWR),
    signal.SIGRTMIN,
]


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_ends_the_program_and_the_guest_is_thawed(stage: Stage, number: int) -> None:
    process, end = stage.freeze_and_wait()
    process.send_signal(number)
    assert process.wait(PATIENCE) == 128 + number
    assert stage.guest.frozen == 0
    os.close(end)


def test_a_program_that_minds_no_signal_ends_by_itself(stage: Stage) -> None:
    script = 'trap "" TERM; echo ready; cat "$0"; exit 5'
    process = stage.freeze("sh", "-c", script, str(stage.fifo), stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        end = os.open(stage.fifo, os.O_WRONLY)
        assert stage.guest.frozen == 2
        os.close(end)
        assert process.wait(PATIENCE) == 5
    assert stage.guest.frozen == 0


def test_keys_of_the_terminal(stage: Stage) -> None:
    """^Z does not stop the program and leave the guest frozen; ^C ends it."""
    leader, terminal = pty.openpty()
    process, end = stage.freeze_and_wait(
        start=ON_A_TERMINAL, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    os.write(leader, b"\x1a")
    read_until(leader, b"^Z")
    os.write(leader, b"\x03")
    assert process.wait(PATIENCE) == 130
    assert stage.guest.frozen == 0
    os.close(leader)
    os.close(end)


def read_until(leader: int, mark: bytes) -> bytes:
    seen = b""
    while mark not in seen:
        ready, _, _ = select.select([leader], [], [], PATIENCE)
        assert ready, seen
        seen += os.read(leader, 1000)
    return seen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_while_the_freeze_is_under_way_undoes_it(stage: Stage, number: int) -> None:
    def freeze(arguments: dict[str, Any]) -> object:
        stage.guest.freeze(arguments)
        return LATE

    stage.peer.handlers["guest-fsfreeze-freeze"] = freeze
    process = stage.freeze("true")
    wait_until(lambda: stage.guest.frozen, "no freeze")
    process.send_signal(number)
    assert process.wait(PATIENCE) == 128 + number
    assert stage.guest.frozen == 0


def test_a_signal_while_the_thaw_is_under_way_waits(stage: Stage) -> None:
    under_way, go_on = threading.Event(), threading.Event()

    def thaw(arguments: dict[str, Any]) -> Any:
        under_way.set()
        go_on.wait(PATIENCE)
        return stage.guest.thaw(arguments)

    stage.peer.handlers["guest-fsfreeze-thaw"] = thaw
    process = stage.freeze("true")
    assert under_way.wait(PATIENCE)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    go_on.set()
    assert process.wait(PATIENCE) == 0
    assert stage.guest.frozen == 0


def test_a_freeze_that_did_not_last_is_a_failure(stage: Stage) -> None:
    process, end = stage.freeze_and_wait(stderr=subprocess.PIPE)
    stage.guest.frozen = 0
    os.close(end)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 125
    assert b"the freeze did not last" in err


def test_a_thaw_that_fails_is_a_failure_whatever_the_program_did(stage: Stage) -> None:
    def thaw(arguments: dict[str, Any]) -> Any:
        stage.guest.thaw(arguments)
        return OSError("GenericError", "hook has failed")

    stage.peer.handlers["guest-fsfreeze-thaw"] = thaw
    status, _, err = qgactl("freeze", "--", "true", address=stage.peer.address)
    assert (status, err) == (
        125,
        f"qgactl: {stage.peer.address}: guest-fsfreeze-thaw: hook has failed\n",
    )


def test_a_freeze_that_fails(stage: Stage) -> None:
    busy = OSError("GenericError", "a freeze is going on already")
    stage.peer.handlers["guest-fsfreeze-freeze"] = lambda _: busy
    status, _, err = qgactl("freeze", "--", "touch", str(stage.fifo), address=stage.peer.address)
    assert status == 125
    assert err.endswith("guest-fsfreeze-freeze: a freeze is going on already\n")
    assert stage.commands() == ["freeze"]


def test_a_program_that_is_not_there_freezes_nothing(stage: Stage) -> None:
    assert qgactl("freeze", "--", "/nonexistent", address=stage.peer.address) == (
        127,
        "",
        "qgactl: /nonexistent: no such program on this host; nothing was frozen\n",
    )
    assert stage.peer.requests == []


def test_freeze_status_thaw(stage: Stage) -> None:
    address = stage.peer.address
    assert qgactl("freeze", address=address)[1] == f"{address}: 2 filesystems frozen\n"
    assert qgactl("status", address=address) == (0, "frozen\n", "")
    assert qgactl("thaw", address=address)[1] == f"{address}: 2 filesystems thawed\n"
    assert qgactl("status", "--json", address=address)[1] == '{"status":"thawed"}\n'
    assert qgactl("thaw", "--json", address=address)[1] == '{"thawed":0}\n'
    assert qgactl("freeze", "--json", address=address)[1] == '{"frozen":2}\n'
    assert qgactl("thaw", address=address)[1] == f"{address}: 2 filesystems thawed\n"
    assert qgactl("thaw", address=address)[1] == f"{address}: no filesystem was frozen\n"


def test_one_filesystem(stage: Stage) -> None:
    def one(_: object) -> int:
        stage.guest.frozen = 1
        return 1

    stage.peer.handlers["guest-fsfreeze-freeze"] = one
    address = stage.peer.address
    assert qgactl("freeze", "--", "true", address=address)[2] == (
        f"qgactl: {address}: 1 filesystem frozen, 1 thawed\n"
    )


@pytest.mark.parametrize("count", [0, -1])
def test_where_nothing_was_frozen_the_program_does_not_run(stage: Stage, count: int) -> None:
    """A snapshot that failed must not pass for a good one."""
    stage.peer.handlers["guest-fsfreeze-freeze"] = lambda _: count
    mark = stage.fifo.parent / "ran"
    status, _, err = qgactl("freeze", "--", "touch", str(mark), address=stage.peer.address)
    assert (status, mark.exists()) == (125, False)
    assert err == (f"qgactl: {stage.peer.address}: guest-fsfreeze-freeze: nothing was frozen\n")
    assert qgactl("freeze", address=stage.peer.address)[0] == 1


def test_a_mount_point_that_does_not_exist_is_named(stage: Stage) -> None:
    stage.peer.handlers["guest-get-fsinfo"] = lambda _: [
        {"name": "vdb", "mountpoint": "/srv", "type": "xfs", "disk": []}
    ]
    arguments = ("--mount", "/srv", "--mount", "/nope", "--", "true")
    status, _, err = qgactl("freeze", *arguments, address=stage.peer.address)
    assert status == 125
    assert err.endswith("nothing was frozen: no disk of the guest is mounted at /nope\n")
    assert stage.commands() == ["fsinfo"]


def test_a_program_that_cannot_be_run(stage: Stage, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("no program\n")
    program.chmod(0o755)
    status, _, err = qgactl("freeze", "--", str(program), address=stage.peer.address)
    assert (status, stage.guest.frozen) == (126, 0)
    assert err == f"qgactl: cannot run {program}: Exec format error; the filesystems are thawed\n"
