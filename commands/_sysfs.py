"""Reading the small files of procfs and sysfs, several times quicker than open() does it.

Most of what such a file costs is its opening. So one system call is not made where it tells
nothing, and what monitoring asks for over and over stays open.
"""

from __future__ import annotations

import os
from functools import cache

_PIECE = 16 * 1024
_PAGE = 4096


def read_bytes(path: str) -> bytes:
    """All of a file; OSError when it cannot be read."""
    fd = os.open(path, os.O_RDONLY)
    try:
        content = piece = os.read(fd, _PIECE)
        while piece:  # a short piece is not the last: procfs gives a page at a time
            piece = os.read(fd, _PIECE)
            content += piece
        return content
    finally:
        os.close(fd)


def read_text(path: str) -> str:
    """All of a file as text."""
    return read_bytes(path).decode("utf-8", "replace")


def read_word(path: str, dir_fd: int | None = None) -> str:
    """An attribute in sysfs without white space around it.

    One read gives all of it: an attribute has at most a page (sysfs.rst of the kernel).
    """
    fd = os.open(path, os.O_RDONLY, dir_fd=dir_fd)
    try:
        return os.read(fd, _PAGE).decode("utf-8", "replace").strip()
    finally:
        os.close(fd)


@cache
def keep_open(path: str) -> int:
    """A descriptor of a file or folder of the kernel's that is never closed.

    Nothing grows old behind it: the kernel makes the content anew for whoever reads from the
    beginning.
    """
    return os.open(path, os.O_RDONLY)


def numbers_of(prefix: str, directory: int) -> list[int]:
    """The numbers in names such as cpu0 and cpu1, in the kernel's order, as QEMU's agent has them.

    directory: a descriptor, as of `keep_open`.
    """
    names = (name[len(prefix) :] for name in os.listdir(directory) if name.startswith(prefix))
    return [int(digits) for digits in names if digits.isdecimal()]


def read_kept(path: str) -> bytes:
    """All of a file that stays open."""
    fd = keep_open(path)
    content = piece = os.pread(fd, _PIECE, 0)
    while piece:
        piece = os.pread(fd, _PIECE, len(content))
        content += piece
    return content


def read_kept_word(path: str) -> str:
    """As `read_word`, of a file that stays open."""
    return os.pread(keep_open(path), _PAGE, 0).decode("utf-8", "replace").strip()
