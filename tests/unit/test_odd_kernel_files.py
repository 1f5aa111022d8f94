"""Files of the kernel with what no kernel writes: it costs nothing else, and no error of Python."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from inspect import signature
from io import BytesIO
from typing import Any

import pytest

from qga import QgaError
from qga.plugin.discovery import discover
from qga.plugin.registry import commands_of
from tests.unit.test_kernel_files import ODD_LINES

growing: Any = import_module("qga.commands._grow_filesystems")
identity: Any = import_module("qga.commands._old_identity")
memory_events: Any = import_module("qga.commands._memory_events")
mount_events: Any = import_module("qga.commands._mount_events")
readiness: Any = import_module("qga.commands._readiness")
sysfs: Any = import_module("qga.commands._sysfs")

GARBAGE = [
    b"",
    b"garbage\n",
    b"\xff\xfe",
    b"1 2 3 - x\n" * 4,
    b"\ncpux 1 2 3 4\noom_kill x\ncpu1 1 q\nsome avg10=x avg60\n",
]


class Garbled:
    """The module `os`, with files that all have the same content."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: str, flags: int, **options: Any) -> int:
        fd = os.open(path, flags, **options)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        fd = os.memfd_create("garbled")
        os.write(fd, self._content)
        os.lseek(fd, 0, os.SEEK_SET)
        return fd


def caches() -> Iterator[Any]:
    modules = [module for name, module in sys.modules.items() if name.startswith("qga.commands.")]
    for module in modules:
        yield from (each for each in vars(module).values() if hasattr(each, "cache_clear"))


def open_files() -> set[int]:
    """Descriptors of files and directories of the kernel, and of what is in place of them."""
    found = set()
    for entry in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of listdir
            if os.readlink(f"/proc/self/fd/{entry}").startswith(("/sys", "/proc", "/memfd:")):
                found.add(int(entry))
    return found


def readers() -> Iterator[Any]:
    """The commands that only read and take no arguments, by name."""
    no_agent: Any = None
    for group in discover(None, print):
        for name, method, traits in commands_of(group):
            function = getattr(group, method)
            _self, *parameters = signature(function).parameters.values()
            is_plain = all(each.default is not each.empty for each in parameters)
            if traits.access == "audit" and is_plain:
                yield pytest.param(partial(function, group(no_agent)), id=name)


@pytest.mark.parametrize("content", GARBAGE, ids=range(len(GARBAGE)))
@pytest.mark.parametrize("ask", list(readers()))
def test_files_that_no_kernel_writes_are_named(
    ask: Callable[[], object], content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error, if there is one, is not about Python."""
    for cache in caches():
        cache.cache_clear()
    before = open_files()
    monkeypatch.setattr(sysfs, "os", Garbled(content))
    try:
        ask()
    except QgaError as error:
        assert re.search("number in /(sys|proc)/", error.desc), error.desc
    except OSError:  # such as for a file that a container does not have
        pass
    finally:
        for cache in caches():
            cache.cache_clear()
        for fd in open_files() - before:  # those that `keep_open` would not close
            os.close(fd)


def told_by(module: Any, reader: str, ask: Callable[[], Any]) -> Callable[[bytes], Any]:
    """A function of the content of a table: what is made of it."""

    def told(content: bytes) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, reader, lambda *_: READERS[reader](content), raising=False)
            return ask()

    return told


READERS: dict[str, Callable[[bytes], Any]] = {"open": BytesIO, "read_bytes": bytes}
MOUNTED = b"30 1 8:1 / /home rw - nfs4 host:/home rw\n"
LISTENS = b"0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000\n"
CONNECTED = LISTENS.replace(b" 0A ", b" 01 ")
STALLED = b"some avg10=1.50 avg60=0.00 avg300=0.00 total=0\n"
TABLES = {
    "mounts": (MOUNTED, mount_events.parse),
    "stalls": (STALLED, memory_events.pressure_of),
    "ports": (LISTENS, told_by(readiness, "open", readiness.listening_ports)),
    "peers": (CONNECTED, told_by(identity, "read_bytes", lambda: [*identity._peers("")])),
    "shares": (MOUNTED, told_by(identity, "read_bytes", lambda: [*identity._network_mounts()])),
    "grown": (MOUNTED, told_by(growing, "read_bytes", lambda: growing._last_mounted("/home"))),
}


@pytest.mark.parametrize("odd", [*ODD_LINES, *GARBAGE])
@pytest.mark.parametrize(("line", "told"), TABLES.values(), ids=TABLES)
def test_odd_lines_of_tables_are_skipped(
    line: bytes, told: Callable[[bytes], Any], odd: bytes
) -> None:
    assert told(line * 3)
    assert told(line * 2 + odd.replace(b"\n", b" ") + b"\n" + line) == told(line * 3)


def test_a_mount_point_with_a_carriage_return() -> None:
    """The kernel writes it as it is, and any user may mount there with FUSE."""
    table = MOUNTED.replace(b" /home ", b" /ho\rme ")
    shares = told_by(identity, "read_bytes", lambda: [*identity._network_mounts()])
    grown = told_by(growing, "read_bytes", lambda: growing._last_mounted("/ho\rme"))
    assert shares(table) == ["nfs4 mount of host:/home at /ho\rme"]
    assert grown(table) == ("nfs4", False)
