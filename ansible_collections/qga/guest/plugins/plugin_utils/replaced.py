"""Files of this machine that those of a guest replace, once they are complete."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from tempfile import mkstemp
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def is_special(path: str) -> bool:
    """Whether this is a device, FIFO or directory, which no file may replace."""
    return os.path.exists(path) and not os.path.isfile(path)


def by(path: str, size: int, pieces: Iterable[bytes]) -> bool:
    """Replace a file by one of `size` bytes; False if fewer come, and the file stays as it was.

    The permissions stay as well; a new file has the mode 0600. Raises OSError.
    """
    path = os.path.realpath(path)
    file, temporary = mkstemp(prefix=".qga-", dir=os.path.dirname(path))
    try:
        with open(file, "wb") as target:
            target.writelines(pieces)
            is_whole = target.tell() >= size
        if is_whole:
            with suppress(FileNotFoundError):
                shutil.copymode(path, temporary)
            os.replace(temporary, path)
        return is_whole
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
