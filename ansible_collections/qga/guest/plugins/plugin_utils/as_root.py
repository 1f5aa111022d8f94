"""Files of root, without starting programs in the guest.

Each function returns False if it leaves the work to the copies of the library, which handle
whatever the agent, the path or the kind of file prevents here.

What must stay true: nothing is written through a symbolic link of somebody else. So only a file in
the directory that Ansible has made for its task is written in place: only root can change that one,
even if others may change the directories above it (`remote_tmp`). And only by qga, which refuses a
link as the last component of the path, unless its configuration has follow-symlinks=true.
"""

from __future__ import annotations

import os
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ansible_collections.qga.guest.plugins.plugin_utils import replaced
from qga.client import CommandError, DataPorts
from qga.client.copies.plain_files import PlainFiles
from qga.client.copies.trees import Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qga.client import GuestAgent

PIECE = 1024 * 1024


def put(agent: GuestAgent, source: str, path: str) -> bool:
    """Write a file of this machine to a path of the guest, new or not."""
    if agent.release() is None:
        return False
    try:
        with Path(source).open("rb") as file, closing(files_of(agent)) as guest:
            size = os.fstat(file.fileno()).st_size
            guest.write(Place(path), 0, size, up_to(size, iter(partial(file.read, PIECE), b"")))
    except CommandError:
        return False
    return True


def fetch(agent: GuestAgent, path: str, destination: str) -> bool:
    """Write a file of the guest to a path of this machine, up to the size that it has now."""
    if replaced.is_special(destination):
        return False
    try:
        with closing(files_of(agent)) as guest:
            found = guest.find(path)
            if found is None or not found.is_file or not found.size:
                return False
            pieces = up_to(found.size, guest.chunks(Place(path), 0, found.size))
            return replaced.by(destination, found.size, pieces)
    except CommandError:
        return False


def files_of(agent: GuestAgent) -> PlainFiles:
    return PlainFiles(agent, ports=DataPorts(agent.address))


def up_to(size: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The first `size` bytes."""
    for piece in pieces:
        yield piece[:size]
        size -= len(piece)
        if size <= 0:
            return
