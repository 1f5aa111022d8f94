"""The system's tools that look at volumes and grow them.

They run without a shell, with a fixed PATH and in the C locale, and are killed when their time is
over.
"""

from __future__ import annotations

import os

from qga import QgaError
from qga.programs.run import Finished, run

_FOLDERS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
_VARIABLES = {
    "PATH": ":".join(_FOLDERS),
    "LC_ALL": "C",
    "LANGUAGE": "",
    "LVM_SUPPRESS_FD_WARNINGS": "1",
}
_PACKAGES = {
    "sfdisk": "fdisk or util-linux",
    "partx": "util-linux",
    "cryptsetup": "cryptsetup",
    "lvs": "lvm2",
    "vgs": "lvm2",
    "pvs": "lvm2",
    "pvresize": "lvm2",
    "lvextend": "lvm2",
    "resize2fs": "e2fsprogs",
    "xfs_growfs": "xfsprogs",
    "btrfs": "btrfs-progs",
}

LOOK_TIMEOUT = 60.0
"""Seconds for a tool that only looks, or rehearses."""

CHANGE_TIMEOUT = 1800.0
"""Seconds for a tool that grows something: a filesystem of many terabytes takes minutes."""

_MOST_TOLD = 1000  # characters of a tool's output in an error


class ToolError(QgaError):
    """A tool could not be run, or has failed."""


def is_there(tool: str) -> bool:
    return any(os.access(f"{folder}/{tool}", os.X_OK) for folder in _FOLDERS)


def require(*tools: str) -> None:
    """Raise QgaError if a tool is missing."""
    for tool in tools:
        if not is_there(tool):
            raise QgaError(f"{tool} is missing in the guest: install {_PACKAGES[tool]} there")


def look(*argv: str, stdin: bytes = b"") -> str:
    """Run a tool that changes nothing, and return its output. Raises QgaError if it fails."""
    return _output_of(argv, stdin, LOOK_TIMEOUT, only_looks=True)


def change(*argv: str, stdin: bytes = b"") -> None:
    """Run a tool that changes something. Raises QgaError if it fails."""
    _output_of(argv, stdin, CHANGE_TIMEOUT, only_looks=False)


def _output_of(argv: tuple[str, ...], stdin: bytes, timeout: float, only_looks: bool) -> str:
    ended = _run(argv, stdin, timeout, only_looks)
    if ended.status:
        how = f"status {ended.status}" if ended.status > 0 else f"signal {-ended.status}"
        told = " ".join(ended.output.split())[:_MOST_TOLD]
        raise ToolError(f"{' '.join(argv)} failed with {how}: {told}")
    return ended.output


def _run(argv: tuple[str, ...], stdin: bytes, timeout: float, only_looks: bool) -> Finished:
    try:
        return run(list(argv), timeout, stdin, only_looks=only_looks, variables=_VARIABLES)
    except TimeoutError:
        reason = f"{' '.join(argv)} took over {timeout:g} s and was killed"
        raise ToolError(reason) from None
    except OSError as error:
        raise ToolError(f"{argv[0]} cannot be run: {error.strerror}") from error
