"""The hybrid vsock sockets of a monitor, by its command line.

    cloud-hypervisor --vsock cid=3,socket=PATH
    firecracker --id NAME --config-file FILE     FILE has {"vsock": {"uds_path": PATH}}
    vhost-device-vsock --socket CONTROL --uds-path PATH, or --vm socket=CONTROL,uds-path=PATH

A Firecracker that is told its vsock over its API socket is not found: nothing shows the path.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import PurePath
from typing import NamedTuple, Protocol

# Bytes of Firecracker's configuration.
LONGEST_CONFIGURATION = 1024 * 1024


class Vsock(NamedTuple):
    """name: of the guest. path: of the socket. control: the socket that its QEMU connects to."""

    name: str
    path: str
    control: str = ""


class Monitor(Protocol):
    """The process."""

    def file(self, path: str, size: int) -> bytes:
        """The content of a file as the process sees it, of a trusted user only."""


def vsocks(program: str, argv: list[str], process: Monitor) -> list[Vsock]:
    """Paths are as the process sees them. Raises OSError, and ValueError where nothing fits."""
    if program.startswith("cloud-hypervisor"):
        return [named(found["socket"]) for found in keyed(argv, "vsock") if "socket" in found]
    if program.startswith("firecracker"):
        return list(of_firecracker(argv, process))
    if program.startswith("vhost-device-vsock"):
        return list(of_device(argv))
    return []


def of_firecracker(argv: list[str], process: Monitor) -> Iterator[Vsock]:
    for path in options(argv, "config-file"):
        try:
            content = json.loads(process.file(path, LONGEST_CONFIGURATION))
        except RecursionError:
            raise ValueError("nested too deeply") from None
        device = content.get("vsock") if isinstance(content, dict) else None
        socket = device.get("uds_path") if isinstance(device, dict) else None
        if isinstance(socket, str) and socket:
            yield named(socket, next(options(argv, "id"), ""))


def of_device(argv: list[str]) -> Iterator[Vsock]:
    for control, path in zip(options(argv, "socket"), options(argv, "uds-path")):
        yield named(path, control=control)
    for found in keyed(argv, "vm"):
        if "uds-path" in found:
            yield named(found["uds-path"], control=found.get("socket", ""))


def named(path: str, name: str = "", control: str = "") -> Vsock:
    """A guest without a name has that of its socket."""
    return Vsock(name or PurePath(path).stem, path, control)


def keyed(argv: list[str], option: str) -> Iterator[dict[str, str]]:
    """The values of an option such as `cid=3,socket=PATH`."""
    for value in options(argv, option):
        yield {key: text for key, _, text in (part.partition("=") for part in value.split(","))}


def options(argv: list[str], option: str) -> Iterator[str]:
    """The values of `--option VALUE` and `--option=VALUE`."""
    for word, following in zip(argv, [*argv[1:], ""]):
        if word == f"--{option}":
            yield following
        elif word.startswith(f"--{option}="):
            yield word.partition("=")[2]


def seen_by(path: str, root: str, directory: str) -> str:
    """The path of a file that a process with this root and directory calls `path`."""
    return root.rstrip("/") + path if path.startswith("/") else os.path.join(directory, path)
