"""Reads small files of procfs and sysfs, several times faster than open().

Opening such a file takes most of the time. So every system call counts, and files that monitoring
reads again and again stay open.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from typing import Callable, TypeVar

from qga import QgaError

L = TypeVar("L")
T = TypeVar("T")

_PIECE = 16 * 1024
_PAGE = 4096
_SHOWN = 40  # characters of what is not a number


def read_bytes(path: str) -> bytes:
    """Read a file. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        content = piece = os.read(fd, _PIECE)
        while piece:  # a short read is not the last: procfs returns a page at a time
            piece = os.read(fd, _PIECE)
            content += piece
        return content
    finally:
        os.close(fd)


def read_text(path: str) -> str:
    """Read a file as text."""
    return read_bytes(path).decode("utf-8", "replace")


def read_word(path: str, dir_fd: int | None = None) -> str:
    """Read an attribute in sysfs, without white space around it.

    One read(2) is enough, because an attribute has at most a page (the kernel's sysfs.rst).
    """
    fd = os.open(path, os.O_RDONLY, dir_fd=dir_fd)
    try:
        return os.read(fd, _PAGE).decode("utf-8", "replace").strip()
    finally:
        os.close(fd)


@cache
def keep_open(path: str) -> int:
    """Open a file or directory of the kernel once, and never close it.

    The kernel generates the content whenever it is read from the beginning, so it is current.
    """
    return os.open(path, os.O_RDONLY)


def understood(read: Callable[[L], T], lines: Iterable[L]) -> list[T]:
    """What `read` makes of each line. Those that it cannot read are left out, so that one line of a
    newer kernel, or an unexpected name, does not hide all others."""
    results = []
    for line in lines:
        try:  # contextlib would take memory in every guest that is monitored
            results.append(read(line))
        except (ValueError, OverflowError, LookupError):
            continue
    return results


def parse_number(text: str | bytes, path: str, base: int = 10) -> int:
    """The number that was read from `path`. Raises QgaError."""
    try:
        return int(text, base)
    except ValueError:
        shown = text if isinstance(text, str) else text.decode("utf-8", "replace")
        raise QgaError(f"expected a number in {path}, not '{shown[:_SHOWN]}'") from None


def numbers_of(prefix: str, directory: int) -> list[int]:
    """The numbers in names such as cpu0 and cpu1, in the kernel's order, as in QEMU's agent.

    directory: its descriptor.
    """
    names = (name[len(prefix) :] for name in os.listdir(directory) if name.startswith(prefix))
    return [int(digits) for digits in names if digits.isdecimal()]


def read_kept(path: str) -> bytes:
    """Read a file that stays open."""
    fd = keep_open(path)
    content = piece = os.pread(fd, _PIECE, 0)
    while piece:
        piece = os.pread(fd, _PIECE, len(content))
        content += piece
    return content


def read_kept_word(path: str) -> str:
    """As `read_word`, for a file that stays open."""
    return os.pread(keep_open(path), _PAGE, 0).decode("utf-8", "replace").strip()
