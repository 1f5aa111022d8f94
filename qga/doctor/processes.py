"""Other processes, for --doctor: which of them are agents, and which have a file open.

Everything comes from /proc. A process that exits meanwhile is ignored. Only root can see the open
files of others. A process can choose its command line freely, so that alone does not make it an
agent: its executable counts, its user must be root or our own, and it must not be in a container.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from qga.errors import ConfigError
from qga.settings import options

_LONGEST_NAME = 60
_START_TIME = 19  # the field of proc_pid_stat(5), counted from the state
_ORIGINAL = "qemu-ga"
_LISTENING = 0x10000  # __SO_ACCEPTCON of <linux/net.h>


_WITH_VALUE = "WX"  # options of python(1) that take a value
_SYSTEM = ("ns/pid", "root")
"""Files below /proc/PID that are the same for all processes outside containers."""


class Process(NamedTuple):
    """A process: `argv` is its command line, `program` its executable.

    trusted: whether it belongs to root or our own user, and is not in a container.
    """

    pid: int
    argv: list[str]
    program: str
    trusted: bool = True

    @property
    def name(self) -> str:
        text = " ".join(self.argv) or os.path.basename(self.program) or _comm(self.pid)
        return text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"

    @property
    def options(self) -> list[str] | None:
        """The options of this agent; None if it is not one."""
        # The kernel runs the interpreter of a script, so that is the executable.
        if not self.trusted or not os.path.basename(self.program).startswith("python"):
            return None
        kind, name, arguments = _run_by_python(self.argv)
        is_agent = name == "qga" if kind == "m" else os.path.basename(name) == _ORIGINAL
        return arguments if is_agent and kind != "c" else None

    @property
    def is_original(self) -> bool:
        """Whether it is QEMU's own agent."""
        return self.trusted and os.path.basename(self.program) == _ORIGINAL


def _run_by_python(argv: list[str]) -> tuple[str, str, list[str]]:
    """What python runs: "m" for a module, "c" for code, "" for a script; its name; the rest.

    Parsed as by python(1): letters may be joined, and some take a value.
    """
    words = iter(argv[1:])
    for word in words:
        if not word.startswith("-") or word == "-":
            return "", word, list(words)
        if word.startswith("--"):
            if word == "--check-hash-based-pycs":
                next(words, None)
            continue
        for at, letter in enumerate(word[1:], 2):
            if letter in "mc":
                return letter, word[at:] or next(words, ""), list(words)
            if letter in _WITH_VALUE:
                if not word[at:]:
                    next(words, None)
                break
    return "", "", []


def process(pid: int) -> Process | None:
    """The process with that ID; None if there is none."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            argv = [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]
    except OSError:
        return None
    try:
        program = os.readlink(f"/proc/{pid}/exe")
    except OSError:
        program = ""
    return Process(pid, argv, program, _is_trusted(pid))


def _is_trusted(pid: int) -> bool:
    """Whether all user IDs of a process are root's or our own, and it is not in a container."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            users = next(line for line in file if line.startswith("Uid:")).split()[1:]
        places = [
            (os.stat(f"/proc/{pid}/{name}"), os.stat(f"/proc/self/{name}")) for name in _SYSTEM
        ]
    except (OSError, StopIteration):
        return False
    of_ours = {0, os.geteuid()}.issuperset(map(int, users))
    return of_ours and all(os.path.samestat(*place) for place in places)


def agents() -> list[Process]:
    """All running qga agents, except for those that only print something, such as a doctor."""
    found = (process(pid) for pid in _pids() if pid != os.getpid())
    return [each for each in found if each is not None and _serves(each)]


def _serves(agent: Process) -> bool:
    try:
        return agent.options is not None and options.parse(agent.options).action == "serve"
    except ConfigError:
        return False


def holders(path: str) -> list[Process]:
    """The other processes that have this file open."""
    return _with_open({os.path.realpath(path)})


def listeners(path: str) -> list[Process]:
    """The processes that listen on the unix socket at `path`."""
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as file:
        # The eighth column is the path, which may contain blanks.
        lines = [line.rstrip("\n").split(None, 7) for line in file][1:]
    found = (line for line in lines if line[7:] == [path] and int(line[3], 16) & _LISTENING)
    return _with_open({f"socket:[{line[6]}]" for line in found})


def started(pid: int) -> float:
    """When a process was started, in seconds since 1970-01-01 UTC."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        # The name before it, in parentheses, may contain blanks and parentheses.
        ticks = int(file.read().rpartition(b") ")[2].split()[_START_TIME])
    uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")


def environment(pid: int) -> dict[str, str]:
    """The environment that a process was started with; empty without permission to see it."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            pairs = os.fsdecode(file.read()).split("\0")
    except OSError:
        return {}
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def _with_open(names: set[str]) -> list[Process]:
    found = []
    for pid in _pids():
        if pid != os.getpid() and any(link in names for link in _open_files(pid)):
            holder = process(pid)
            if holder is not None:
                found.append(holder)
    return found


def _open_files(pid: int) -> Iterator[str]:
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        try:
            yield os.readlink(f"{folder}/{name}")
        except OSError:
            continue


def _pids() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())


def _comm(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return "?"
