"""The QEMU processes of this host and other monitors, by their command lines.

Any process can claim anything in its command line. It counts only if the process belongs to a
trusted user (qga.client.hosts.trust) and its program is a monitor: anyone can start a set-user-ID
program of root with arguments of their choice. psutil would read command lines of any length.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from qga.client.hosts.trust import LeftOut, believed_users, user_names
from qga.client.hosts.vsock_options import Vsock, seen_by, vsocks

# The port that agents serve and management programs look for.
AGENT_PORT = "org.qemu.guest_agent.0"

PROGRAM = re.compile(
    r"(qemu-system-.*|qemu-kvm|kvm|cloud-hypervisor.*|firecracker.*|vhost-device-vsock)"
)

# After the path in /proc/PID/exe when the program was replaced, as by an upgrade.
DELETED = " (deleted)"

# Bytes of a command line that are read to recognize a QEMU, and to parse its options.
BEGINNING, LONGEST_COMMAND = 4096, 1024 * 1024

# Characters of a guest's name, which is a label of each of its metrics.
LONGEST_NAME = 256

# QEMU's arguments contain the directory that libvirt creates for a running domain.
DOMAIN_ID = re.compile(r"/domain-(\d+)-[^/]+/")

OTHERS = "run by another user; unix:PATH reaches it anyway"
NOT_MONITOR = "not a QEMU or other monitor, despite its arguments"
UNKNOWN_PROGRAM = "only root can see which program it is"
HIDDEN = "/proc hides processes of other users (hidepid)"

# QEMU reads two commas as one that belongs to the value.
OPTION = re.compile(r"(?:[^,]|,,)+")


class Machine(NamedTuple):
    """A running QEMU, or another monitor.

    sockets: of its agent ports.
    ports: the sockets of all its virtio-serial ports that have one, by the name of the port.
    monitor: a socket on which it serves QMP, or "".
    domain_id: libvirt's number for it, or "".
    clients: the sockets that it connects to, such as that of a vhost-user device.
    vsocks: its hybrid vsock sockets. kind: the manager that FoundGuest names.
    """

    pid: int
    name: str
    sockets: tuple[str, ...]
    ports: Mapping[str, str] = {}
    monitor: str = ""
    domain_id: str = ""
    clients: tuple[str, ...] = ()
    vsocks: tuple[Vsock, ...] = ()
    kind: str = "qemu"


class Process:
    """A directory of /proc, kept open, so that it cannot be that of a later process of this pid."""

    def __init__(self, proc: Path, pid: int, users: frozenset[int] = frozenset()) -> None:
        """users: those whose files are believed."""
        self.pid = pid
        self._root = proc.parent
        self._users = users
        self._fd = os.open(proc / str(pid), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def read(self, name: str, size: int = LONGEST_COMMAND) -> bytes:
        with os.fdopen(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._fd), "rb") as file:
            return file.read(size)

    def link(self, name: str) -> str:
        return os.readlink(name, dir_fd=self._fd)

    def file(self, path: str, size: int) -> bytes:
        """The content of a file as the process sees it; ValueError if it is another user's."""
        place = self._root / self.place_of(path).lstrip("/")
        with open(os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if os.fstat(file.fileno()).st_uid not in self._users:
                raise ValueError(f"{place} is another user's")
            return file.read(size)

    def place_of(self, path: str) -> str:
        """Where on the host a file is that the process calls `path`."""
        return seen_by(path, self.link("root"), self.link("cwd"))

    def arguments(self, size: int = LONGEST_COMMAND) -> list[str]:
        """The arguments that are complete within `size` bytes."""
        return [os.fsdecode(word) for word in self.read("cmdline", size).split(b"\0")[:-1]]

    def users(self) -> set[int]:
        """All its user ids: the caller of a set-user-ID program controls what it does."""
        found = {os.fstat(self._fd).st_uid}
        for line in self.read("status").splitlines():
            if line.startswith(b"Uid:"):
                found.update(map(int, line.split()[1:]))
        return found


def running_machines(root: Path, left_out: LeftOut | None = None) -> list[Machine]:
    """The trusted ones in the /proc below `root`, in order of their pids."""
    left_out = LeftOut() if left_out is None else left_out
    users = believed_users(root)
    found = []
    for pid in process_ids(root / "proc", left_out):
        try:
            with Process(root / "proc", pid, users) as process:
                if machine := machine_of(process, users, left_out):
                    found.append(machine)
        except (FileNotFoundError, ProcessLookupError, ValueError):
            pass  # it has exited, or its options make no sense
        except PermissionError:
            left_out.add(HIDDEN, f"process {pid}")
        except OSError as error:
            left_out.unreadable(f"process {pid}", error)
    return found


def process_ids(proc: Path, left_out: LeftOut) -> list[int]:
    try:
        found = sorted(int(name) for name in os.listdir(proc) if name.isdecimal())
    except FileNotFoundError:
        return []
    except OSError as error:
        left_out.unreadable(proc, error)
        return []
    if found and found[0] != 1:  # pid 1 is missing only if it is hidden
        left_out.add(HIDDEN, "guests of other users")
    return found


def machine_of(process: Process, users: frozenset[int], left_out: LeftOut) -> Machine | None:
    """None if it is not a monitor, or not trusted."""
    argv = process.arguments(BEGINNING)
    if not argv or not is_monitor(argv[0]):
        return None
    others = process.users() - users
    if others:
        named = f"process {process.pid} of {user_names(others)} ({name_in(argv, process.pid)})"
        left_out.add(OTHERS, named)
        return None
    try:
        program = process.link("exe").removesuffix(DELETED)
    except PermissionError:
        left_out.add(UNKNOWN_PROGRAM, f"process {process.pid} ({name_in(argv, process.pid)})")
        return None
    if not is_monitor(program):
        left_out.add(NOT_MONITOR, f"process {process.pid} ({program})")
        return None
    # Read again: before its execve(2) the process may have had other arguments.
    argv = process.arguments()
    return machine(argv, process) if is_qemu(program) else other_machine(program, argv, process)


def is_monitor(program: str) -> bool:
    return PROGRAM.fullmatch(short_name(program)) is not None


def is_qemu(program: str) -> bool:
    return short_name(program).startswith(("qemu-", "kvm"))


def short_name(program: str) -> str:
    """On NixOS the program behind a wrapper is called .NAME-wrapped."""
    return os.path.basename(program).lstrip(".")


def other_machine(program: str, argv: list[str], process: Process) -> Machine:
    name = short_name(program)
    found = tuple(
        Vsock(each.name[:LONGEST_NAME], process.place_of(each.path), each.control)
        for each in vsocks(name, argv, process)
    )
    kind = next((each for each in ("firecracker", "cloud-hypervisor") if each in name), "qemu")
    return Machine(process.pid, f"{kind}-{process.pid}", (), vsocks=found, kind=kind)


def name_in(argv: list[str], pid: int) -> str:
    names = [found["guest"] for found in values(argv, "name", "guest") if "guest" in found]
    return names[-1][:LONGEST_NAME] if names else f"qemu-{pid}"


def machine(argv: list[str], process: Process) -> Machine:
    sockets = [each for each in values(argv, "chardev", "backend") if "path" in each]
    paths = {each.get("id"): each["path"] for each in sockets if is_server(each)}
    ports = [
        (device.get("name", ""), located(paths[device["chardev"]], process))
        for device in values(argv, "device", "driver")
        if device.get("chardev") in paths
    ]
    ids = (found[1] for found in map(DOMAIN_ID.search, argv) if found)
    return Machine(
        process.pid,
        name_in(argv, process.pid),
        tuple(path for name, path in ports if name == AGENT_PORT),
        dict(ports),
        next((located(path, process) for path in monitors(argv, paths)), ""),
        next(ids, ""),
        tuple(each["path"] for each in sockets if not is_server(each)),
    )


def monitors(argv: list[str], chardevs: Mapping[str | None, str]) -> Iterator[str]:
    """The QMP sockets: -qmp unix:PATH,server=on, or -mon with a chardev."""
    for value in values(argv, "qmp", "address"):
        scheme, _, path = value.get("address", "").partition(":")
        if scheme == "unix" and is_server(value):
            yield path
    for value in values(argv, "mon", "chardev"):
        if value.get("mode") == "control" and value.get("chardev") in chardevs:
            yield chardevs[value["chardev"]]


def is_server(options: Mapping[str, str]) -> bool:
    return options.get("server", "off") in {"on", "yes", "true"}


def located(path: str, process: Process) -> str:
    """A path that may be relative to the process's working directory."""
    return path if path.startswith("/") else os.path.join(process.link("cwd"), path)


def values(argv: list[str], option: str, implied: str) -> Iterator[dict[str, str]]:
    """The parsed values of an option that may be repeated."""
    for flag, value in zip(argv, argv[1:]):
        if flag in {f"-{option}", f"--{option}"}:
            yield parts(value, implied)


def parts(value: str, implied: str) -> dict[str, str]:
    """Parse `socket,id=a,server=on` or its JSON. A first word without a key is for `implied`."""
    if value.startswith("{"):
        try:
            return {key: str(word) for key, word in json.loads(value).items()}
        except RecursionError:
            raise ValueError("nested too deeply") from None
    words = [word.replace(",,", ",") for word in OPTION.findall(value)]
    if words and "=" not in words[0]:
        words[0] = f"{implied}={words[0]}"
    return {name: text or "on" for name, _, text in (word.partition("=") for word in words)}
