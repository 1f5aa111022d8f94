"""Access to a directory of the host that no name can escape from.

What must stay true: no name leads out of the directory, even if somebody replaces directories with
symbolic links in the meantime. The directory is held open. The kernel resolves names below it with
openat2(2) and RESOLVE_BENEATH. Before Linux 5.6, or if a container's seccomp filter denies that
call, names are resolved step by step with O_NOFOLLOW. Neither follows a link. The last component of
a name is for calls with `dir_fd`, which must not follow a link either.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EAGAIN, EINVAL, ELOOP, ENOSYS, ENOTDIR, EPERM

from qga.client.copies.trees import is_inside

DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

# The same on all architectures, as for all system calls since Linux 5.1. Architectures whose
# numbers have an offset (alpha, mips) return ENOSYS for it.
OPENAT2 = 437

RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 0x04, 0x08

# Older seccomp filters of containers return EPERM; the kernel returns EAGAIN during a rename.
WITHOUT_OPENAT2 = (ENOSYS, EPERM, EAGAIN)


class OpenHow(ctypes.Structure):
    """struct open_how of linux/openat2.h."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


class Beneath:
    """The directory at `path`. Links in `path` itself are followed."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, DIRECTORY)

    def __enter__(self) -> Beneath:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._fd)

    @contextmanager
    def directory(self, name: str = "") -> Iterator[int]:
        """A descriptor (O_PATH) of this directory or one below it."""
        if name and not is_inside(name):
            raise OSError(EINVAL, "leads out of the directory", name)
        fd = self._open(os.fsencode(name or "."))
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def parent(self, name: str) -> Iterator[tuple[int, str]]:
        """A descriptor of the directory that contains `name`, and the last component of `name`."""
        folder, _, last = name.rpartition("/")
        if not is_inside(name):
            raise OSError(EINVAL, "leads out of the directory", name)
        with self.directory(folder) as fd:
            yield fd, last

    def _open(self, name: bytes) -> int:
        try:
            try:
                return openat2(self._fd, name)
            except OSError as error:
                if error.errno not in WITHOUT_OPENAT2:
                    raise
            return walk(self._fd, name)
        except OSError as error:
            reason = "leads through a symbolic link or a file"
            if error.errno in (ELOOP, ENOTDIR):
                raise NotADirectoryError(ENOTDIR, reason, os.fsdecode(name)) from None
            raise


def openat2(directory: int, name: bytes) -> int:
    """Open a directory below another one with openat2(2)."""
    how = OpenHow(DIRECTORY, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    size = ctypes.c_size_t(ctypes.sizeof(how))
    number, at = ctypes.c_long(OPENAT2), ctypes.c_int(directory)
    fd: int = system_call(number, at, ctypes.c_char_p(name), ctypes.byref(how), size)
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), os.fsdecode(name))
    return fd


def walk(directory: int, name: bytes) -> int:
    """The same as `openat2`, one component at a time."""
    fd = os.open(".", DIRECTORY, dir_fd=directory)
    for part in name.split(b"/"):
        try:
            inner = os.open(part, DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
        finally:
            os.close(fd)
        fd = inner
    return fd


system_call = ctypes.CDLL(None, use_errno=True).syscall
system_call.restype = ctypes.c_long
