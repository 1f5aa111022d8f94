"""Replaces files of root: all that belong together, or none.

What must stay true:

- Only root can write to the directory and to those above it, so nobody can put a link there
  between the check and the change. A file that is a symbolic link is refused.
- A file always has either its old or its new content, with the old owner, mode and SELinux label.
- What fails leaves every file as it was. If one cannot be put back, the others are, and its old
  content stays beside it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from qga import QgaError
from qga.settings import trust

_LABEL = "security.selinux"
_MAX_FILE = 1024 * 1024
_NEW_MODE = 0o644


@contextmanager
def replaced(contents: Mapping[str, bytes]) -> Iterator[None]:
    """Replace files for good, unless the block raises an exception.

    contents: the new content for each absolute path; a missing file is created with mode 644.
    Raises QgaError or OSError.
    """
    changes = [_Change(path, content) for path, content in contents.items()]
    try:
        for change in changes:
            change.prepare()
        for change in changes:
            change.make()
        yield
    except BaseException as error:
        failures = [failure for change in reversed(changes) if (failure := change.undo())]
        if failures:
            raise QgaError("; ".join([str(error), *failures])) from error
        raise
    finally:
        for change in changes:
            change.clean()


def directory_of_root(path: str) -> str:
    """The real path of a directory, if only root can write to it. Raises QgaError and OSError."""
    try:
        return trust.require(path)
    except trust.Untrusted as error:
        raise QgaError(str(error)) from None


def read_own(path: str) -> bytes | None:
    """The content of a regular file of a directory of root; None without it."""
    if status_of(path) is None:
        return None
    with open(path, "rb", buffering=0) as file:
        content = file.read(_MAX_FILE + 1)
    if len(content) > _MAX_FILE:
        raise QgaError(f"{path} is larger than {_MAX_FILE // 1024} KiB")
    return content


def status_of(path: str) -> os.stat_result | None:
    """That of a regular file; None if there is nothing. Raises QgaError for anything else."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a regular file"
        raise QgaError(f"{path} is {kind}; replace it by hand")
    return status


class _Change:
    """One file that is replaced; what it was is kept beside it until `clean`."""

    def __init__(self, path: str, content: bytes) -> None:
        folder, name = os.path.split(path)
        self._path = os.path.join(directory_of_root(folder), name)
        self._content = content
        self._unfinished, self._kept = f"{self._path}.qga-new", f"{self._path}.qga-old"
        self._was = status_of(self._path)
        self._is_made = self._is_lost = False

    def prepare(self) -> None:
        self.clean()  # of an agent that was killed
        fd = os.open(self._unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "wb") as file:
            file.write(self._content)
            file.flush()
            self._dress(fd)
            os.fsync(fd)
        if self._was is not None:
            os.link(self._path, self._kept)

    def _dress(self, fd: int) -> None:
        """Give the new file the owner, mode and label of the old one."""
        if self._was is None:
            os.fchmod(fd, _NEW_MODE)
            return
        os.fchown(fd, self._was.st_uid, self._was.st_gid)
        os.fchmod(fd, stat.S_IMODE(self._was.st_mode))
        with suppress(OSError):  # a kernel or a filesystem without labels
            os.setxattr(fd, _LABEL, os.getxattr(self._path, _LABEL))

    def make(self) -> None:
        os.replace(self._unfinished, self._path)
        self._is_made = True

    def undo(self) -> str:
        """Put back what was there; returns why that failed, or ""."""
        if not self._is_made:
            return ""
        try:
            if self._was is None:
                os.unlink(self._path)
            else:
                os.replace(self._kept, self._path)
        except OSError as error:
            self._is_lost = True
            where = f" (see {self._kept})" if self._was is not None else ""
            return f"{self._path} has its new content{where}: {error.strerror}"
        return ""

    def clean(self) -> None:
        for path in (self._unfinished,) if self._is_lost else (self._unfinished, self._kept):
            with suppress(OSError):
                os.unlink(path)
