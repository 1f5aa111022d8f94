"""Files of a user of the guest, read and written by programs of that user.

The agent is root. If it wrote into a user's directory itself, a symbolic link there could lead it
elsewhere.
"""

from __future__ import annotations

import shlex
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from ansible_collections.qga.guest.plugins.plugin_utils import replaced
from qga.client import CopyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qga.client import GuestAgent

PIECE = 1024 * 1024
"""Bytes per program. A program costs more than its bytes, and its input must fit into a request."""

IN_HOME = "cd 2>/dev/null; "
"""Where a login would start, so that relative paths mean the same as with ssh."""

CREATE = 'umask 077; exec cat >"$1"'
APPEND = 'exec cat >>"$1"'
SIZE = 'test -f "$1" && exec wc -c <"$1"; echo "is not a regular file" >&2; exit 1'
READ = 'exec dd if="$1" bs=1048576 skip="$2" count=1 2>/dev/null'


def in_home(shell: str, command: str) -> list[str]:
    """Arguments that run a command by a shell, which Ansible usually wraps in the same shell."""
    words: list[str] = []
    with suppress(ValueError):  # an unfinished quotation, of which the shell will complain
        words = shlex.split(command)
    if len(words) == 3 and command == f"{shell} -c {shlex.quote(words[2])}":
        command = words[2]
    return [shell, "-c", IN_HOME + command]


def put(agent: GuestAgent, user: str, source: str, path: str) -> None:
    """Write a file of this machine to a path of the guest."""
    script = CREATE
    with Path(source).open("rb") as file:
        for piece in iter(partial(file.read, PIECE), b""):
            run(agent, user, script, path, data=piece)
            script = APPEND
    if script is CREATE:
        run(agent, user, script, path)


def fetch(agent: GuestAgent, user: str, path: str, destination: str) -> None:
    """Write a file of the guest to a path of this machine, up to the size that it has now."""
    try:
        size = int(run(agent, user, SIZE, path))
    except ValueError:
        raise CopyError(f"{path}: the guest reports no size", address=agent.address) from None
    if replaced.is_special(destination):
        raise CopyError(f"{destination}: is not a regular file", address=agent.address)
    replaced.by(destination, size, pieces_of(agent, user, path, size))


def pieces_of(agent: GuestAgent, user: str, path: str, rest: int) -> Iterator[bytes]:
    for number in count():
        if rest <= 0:
            return
        piece = run(agent, user, READ, path, str(number))[:PIECE]
        if len(piece) < min(PIECE, rest):
            raise CopyError(f"{path}: became shorter meanwhile", address=agent.address)
        yield piece[:rest]
        rest -= len(piece)


def run(
    agent: GuestAgent, user: str, script: str, path: str, *more: str, data: bytes = b""
) -> bytes:
    argv = ["/bin/sh", "-c", IN_HOME + script, "sh", path, *more]
    result = agent.exec(argv, input=data, user=user)
    if result.returncode:
        reason = result.stderr.decode(errors="replace").strip() or "failed"
        raise CopyError(f"{path}: {reason}", address=agent.address)
    return result.stdout
