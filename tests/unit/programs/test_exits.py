"""The end of a child as an event, with a pidfd and without."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from errno import EAGAIN, EMFILE, ENOSYS, EPERM
from pathlib import Path

import pytest

from qga.programs import exits
from qga.programs.exits import open_exit


def fail(number: int) -> Callable[[int], int]:
    def pidfd_open(_pid: int) -> int:
        raise OSError(number, os.strerror(number))

    return pidfd_open


@pytest.fixture(params=["pidfd", "attribute", ENOSYS, EPERM])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> object:
    if request.param == "attribute":
        monkeypatch.delattr(os, "pidfd_open")
    elif request.param != "pidfd":
        monkeypatch.setattr(os, "pidfd_open", fail(request.param))
    return request.param


def start(script: str) -> int:
    return os.posix_spawn("/bin/sh", ["sh", "-c", script], os.environ)


def is_readable(fd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


@pytest.mark.parametrize("end", ["exit 7", "kill -9 $$"])
def test_readable_at_the_end_and_not_before(way: object, end: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    pid = start(f"read x <{gate}; {end}")
    fd = open_exit(pid)
    assert not is_readable(fd, 0.05)
    gate.write_text("go on\n")
    assert is_readable(fd, 10)
    os.close(fd)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == (7 if end == "exit 7" else -9)


def test_a_child_that_has_ended_already(way: object) -> None:
    pid = start("exit 3")
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    fd = open_exit(pid)
    assert is_readable(fd, 10)
    os.close(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


def test_nothing_is_left(way: object) -> None:
    before = os.listdir("/proc/self/fd")
    threads = threading.active_count()
    for _ in range(20):
        pid = start("exit 0")
        fd = open_exit(pid)
        assert is_readable(fd, 10)
        os.close(fd)
        os.waitpid(pid, 0)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert threading.active_count() == threads


@pytest.mark.parametrize("what", ["pipe", "thread"])
def test_a_child_that_cannot_be_followed_is_killed(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def pipe() -> tuple[int, int]:
        raise OSError(EMFILE, os.strerror(EMFILE))

    def thread(_function: object, _arguments: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(os, "pidfd_open", fail(EMFILE))
    before = os.listdir("/proc/self/fd")
    if what == "pipe":
        monkeypatch.setattr(os, "pipe", pipe)
    else:
        monkeypatch.setattr(exits, "start_new_thread", thread)
    pid = start("sleep 60")
    with pytest.raises(OSError) as raised:
        open_exit(pid)
    assert raised.value.errno == (EMFILE if what == "pipe" else EAGAIN)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)
    assert len(os.listdir("/proc/self/fd")) == len(before)
