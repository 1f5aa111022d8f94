"""What is done to files on the loop: cached pages are read, and positions are set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from errno import EACCES, EAGAIN, EINVAL, ENOSYS, EOPNOTSUPP, EPERM
from importlib import import_module
from tempfile import NamedTemporaryFile
from threading import Lock
from types import SimpleNamespace
from typing import Any

import pytest

from qga import Caller
from qga.policy.policy import Policy

files: Any = import_module("qga.commands.files")

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def file() -> Iterator[Any]:
    """A file on a disk: tmpfs, which /tmp is on Debian 13, knows no RWF_NOWAIT."""
    with NamedTemporaryFile(dir="/var/tmp") as named:
        named.write(CONTENT)
        named.flush()
        fd = os.open(named.name, os.O_RDONLY)
        yield files.OpenFile(fd, Lock(), "main")
        os.close(fd)


def position(file: Any) -> int:
    return os.lseek(file.fd, 0, os.SEEK_CUR)


def test_piece_by_piece_to_the_end(file: Any) -> None:
    assert files.read_cached(file, 0) == (b"", False)
    assert files.read_cached(file, 10_000) == (CONTENT[:10_000], False)
    assert files.read_cached(file, 240) == (CONTENT[10_000:], False)
    assert files.read_cached(file, 1) == (b"", True)
    os.lseek(file.fd, -3, os.SEEK_END)
    assert files.read_cached(file, 4) == (CONTENT[-3:], True)


def test_what_is_partly_in_memory_is_left_as_it_is(
    file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_some(fd: int, buffers: list[memoryview], at: int, _flags: int) -> int:
        if position(file) > 100:
            raise BlockingIOError(EAGAIN, "the rest is on the disk")
        buffers[0][:100] = os.read(fd, 100)
        return 100

    os.lseek(file.fd, 7, os.SEEK_SET)
    monkeypatch.setattr(files.os, "preadv", read_some)
    with pytest.raises(BlockingIOError):
        files.read_cached(file, 500)
    assert position(file) == 7
    assert file.cached
    assert file.lock.acquire(blocking=False)


@pytest.mark.parametrize("at_hand", [0, 1, 4096])
@pytest.mark.parametrize("count", [1, 4096, 20_000])
def test_reading_nothing_is_not_the_end_of_the_file(
    file: Any, monkeypatch: pytest.MonkeyPatch, at_hand: int, count: int
) -> None:
    """Linux 5.9 and 5.10 have nothing to give where something is not in memory."""

    def read_some(fd: int, buffers: list[memoryview], _at: int, _flags: int) -> int:
        rest = max(0, min(at_hand - position(file), len(buffers[0])))
        buffers[0][:rest] = os.read(fd, rest)
        return rest

    monkeypatch.setattr(files.os, "preadv", read_some)
    if count <= at_hand:
        assert files.read_cached(file, count) == (CONTENT[:count], False)
    else:
        with pytest.raises(BlockingIOError):
            files.read_cached(file, count)
        assert position(file) == 0
        assert file.cached
    os.lseek(file.fd, 0, os.SEEK_END)
    assert files.read_cached(file, count) == (b"", True)


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(number, "no") for number in (EACCES, EINVAL, ENOSYS, EOPNOTSUPP, EPERM)),
        NotImplementedError("preadv2 is not there"),
    ],
)
def test_where_the_call_is_not_to_be_had(
    file: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_arguments: Any) -> int:
        raise error

    monkeypatch.setattr(files.os, "preadv", refuse)
    with pytest.raises(BlockingIOError):
        files.read_cached(file, 100)
    assert not file.cached
    assert position(file) == 0


def test_a_file_in_use_is_waited_for(file: Any) -> None:
    with file.lock, pytest.raises(BlockingIOError):
        files.read_cached(file, 1)
    assert position(file) == 0


def test_very_much_is_not_copied_on_the_loop(file: Any) -> None:
    with pytest.raises(BlockingIOError):
        files.read_cached(file, files.MAX_AT_ONCE + 1)


@pytest.mark.parametrize("path", ["/dev/zero", "/proc/self/status"])
def test_what_has_no_pages_in_memory(path: str) -> None:
    """Nor can the kernel tell of /proc, which takes some time to make up its files."""
    fd = os.open(path, os.O_RDONLY)
    file = files.OpenFile(fd, Lock(), "main")
    with pytest.raises(BlockingIOError):
        files.read_cached(file, 1)
    assert not file.cached
    assert position(file) == 0
    os.close(fd)


def test_what_a_pipe_holds_stays_there() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"x")
    with pytest.raises(BlockingIOError):
        files.read_cached(files.OpenFile(read_end, Lock(), "main"), 2)
    assert os.read(read_end, 2) == b"x"
    os.close(read_end)
    os.close(write_end)


@pytest.fixture
def seek(file: Any) -> Any:
    """guest-file-seek as the loop calls it."""
    caller = Caller("main", Policy())
    group = files.Files(SimpleNamespace())
    group._files[1] = file
    return lambda *given: group.guest_file_seek(1, *given, caller=caller, may_wait=False)


def test_a_seek_that_never_waits(file: Any, seek: Any) -> None:
    assert seek(100, "set") == {"position": 100, "eof": False}
    assert seek(-20, "cur")["position"] == position(file) == 80
    assert file.lock.acquire(blocking=False)
    with pytest.raises(BlockingIOError):  # a read is under way
        seek(0, "set")
    assert position(file) == 80


def test_a_seek_that_may_wait(file: Any, seek: Any) -> None:
    with pytest.raises(BlockingIOError):
        seek(0, "end")
    file.cached = False
    with pytest.raises(BlockingIOError):
        seek(0, "set")
    assert position(file) == 0
    assert file.lock.acquire(blocking=False)
