"""The QEMUs that run on this host, by their command lines."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

# The port that agents serve, and that management programs look for.
AGENT_PORT = "org.qemu.guest_agent.0"

PROGRAM = re.compile(r"(qemu-system-.*|qemu-kvm|kvm)")

# A comma within a value is written twice.
OPTION = re.compile(r"(?:[^,]|,,)+")


class Machine(NamedTuple):
    """A running QEMU.

    sockets: those on which it serves agents' ports.
    ports: the sockets of all its virtio-serial ports that have one, by the ports' names.
    """

    pid: int
    name: str
    sockets: tuple[str, ...]
    ports: Mapping[str, str] = {}


def running_machines(root: Path) -> list[Machine]:
    """Those in the /proc below `root`, by their numbers."""
    numbers = sorted(int(entry.name) for entry in (root / "proc").glob("[0-9]*"))
    return [machine for pid in numbers if (machine := machine_of(root / "proc" / str(pid), pid))]


def machine_of(process: Path, pid: int) -> Machine | None:
    try:
        command = (process / "cmdline").read_bytes()
        argv = [os.fsdecode(word) for word in command.split(b"\0")[:-1]]
        if not argv or not PROGRAM.fullmatch(os.path.basename(argv[0])):
            return None
        return machine(argv, pid, process)
    except (OSError, ValueError):  # it has ended, is hidden from us, or is no QEMU that runs
        return None


def machine(argv: list[str], pid: int, process: Path) -> Machine:
    names = [found["guest"] for found in values(argv, "name", "guest") if "guest" in found]
    paths = {
        chardev.get("id"): chardev["path"]
        for chardev in values(argv, "chardev", "backend")
        if chardev.get("server", "off") in {"on", "yes", "true"} and "path" in chardev
    }
    ports = [
        (device.get("name", ""), located(paths[device["chardev"]], process))
        for device in values(argv, "device", "driver")
        if device.get("chardev") in paths
    ]
    return Machine(
        pid,
        names[-1] if names else f"qemu-{pid}",
        tuple(path for name, path in ports if name == AGENT_PORT),
        dict(ports),
    )


def located(path: str, process: Path) -> str:
    """A path that may be relative to the process's working directory."""
    return path if path.startswith("/") else os.path.join(os.readlink(process / "cwd"), path)


def values(argv: list[str], option: str, implied: str) -> Iterator[dict[str, str]]:
    """The values of an option that may be repeated, each taken apart."""
    for flag, value in zip(argv, argv[1:]):
        if flag in {f"-{option}", f"--{option}"}:
            yield parts(value, implied)


def parts(value: str, implied: str) -> dict[str, str]:
    """`socket,id=a,server=on` or its JSON; a first word without a name is that of `implied`."""
    if value.startswith("{"):
        return {key: str(word) for key, word in json.loads(value).items()}
    words = [word.replace(",,", ",") for word in OPTION.findall(value)]
    if words and "=" not in words[0]:
        words[0] = f"{implied}={words[0]}"
    return {name: text or "on" for name, _, text in (word.partition("=") for word in words)}
