"""Files between pyinfra and a guest, by the copies of this library: a data port where one is free.

The agent copies as root. A file for another user passes through a directory in the guest that only
root can list and change. The file in it is the user's, with the mode 0600: nobody else can read it,
and not even the user can put something in its place.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.util import get_file_io

from qga.client import GuestAgent, copy_from, copy_to
from qga.client.texts import printable

if TYPE_CHECKING:
    from qga.integrations.pyinfra import QgaConnector

# Arguments of pyinfra that let another user run a command, and those that name the user.
SWITCHES = ("_sudo", "_doas", "_dzdo")
USERS = ("_su_user", "_sudo_user", "_doas_user", "_dzdo_user")

CHUNK = 1024 * 1024

# Of a file that is new in the guest, as over ssh.
MODE = 0o644

# $1: the directory, $2: the user that gets the file in it. Others may enter last.
HAND_OVER = 'chmod 600 "$1/file" && chown -- "$2" "$1/file" && chmod 711 "$1"'

# As that user, $1: the file to read, $2: the file to write; a new one has at most the mode 0644.
COPY = 'umask go-w && cat -- "$1" >"$2"'


def put_file(connector: QgaConnector, file: Any, path: str, arguments: Mapping[str, Any]) -> None:
    with tempfile.TemporaryDirectory(prefix="qga-") as folder, get_file_io(file) as source:
        local = os.path.join(folder, "file")
        with open(local, "wb") as target:
            move(source, target)
        os.chmod(local, MODE)
        if is_other_user(connector, arguments):
            put_as_other_user(connector, local, path, arguments)
        else:
            copy_to(connector.agent, [local], path).require_all()


def put_as_other_user(
    connector: QgaConnector, local: str, path: str, arguments: Mapping[str, Any]
) -> None:
    with directory_in(connector.agent) as directory:
        passed = f"{directory}/file"
        copy_to(connector.agent, [local], passed).require_all()
        hand_over(connector, directory, arguments)
        require(connector, arguments, "sh", "-c", COPY, "sh", passed, path)


def hand_over(connector: QgaConnector, directory: str, arguments: Mapping[str, Any]) -> None:
    reader = reader_of(connector, arguments)
    if reader:
        argv = ["/bin/sh", "-c", HAND_OVER, "sh", directory, reader]
        connector.agent.exec(argv, check=True)


def get_file(connector: QgaConnector, path: str, file: Any, arguments: Mapping[str, Any]) -> None:
    with tempfile.TemporaryDirectory(prefix="qga-") as folder:
        local = os.path.join(folder, "file")
        if is_other_user(connector, arguments):
            get_as_other_user(connector, path, local, arguments)
        else:
            copy_from(connector.agent, [path], local).require_all()
        with open(local, "rb") as source, get_file_io(file, "wb") as target:
            move(source, target)


def get_as_other_user(
    connector: QgaConnector, path: str, local: str, arguments: Mapping[str, Any]
) -> None:
    with directory_in(connector.agent) as directory:
        passed = f"{directory}/file"
        connector.agent.exec(["touch", passed], check=True)
        hand_over(connector, directory, arguments)
        require(connector, arguments, "sh", "-c", COPY, "sh", path, passed)
        copy_from(connector.agent, [passed], local).require_all()


def is_other_user(connector: QgaConnector, arguments: Mapping[str, Any]) -> bool:
    """Whether commands run as another user than that of the agent."""
    return bool(connector.data["qga_user"]) or any(map(arguments.get, (*SWITCHES, *USERS)))


def reader_of(connector: QgaConnector, arguments: Mapping[str, Any]) -> str | None:
    """The user that commands run as; None for root."""
    named = [user for user in map(arguments.get, USERS) if user]
    if named:
        return str(named[0])
    return None if any(map(arguments.get, SWITCHES)) else connector.data["qga_user"]


@contextmanager
def directory_in(agent: GuestAgent) -> Iterator[str]:
    """A directory in the guest that only root may enter."""
    directory = agent.exec(["mktemp", "-d"], check=True, text=True).stdout.strip()
    try:
        yield directory
    finally:
        agent.exec(["rm", "-rf", "--", directory])


def require(connector: QgaConnector, arguments: Mapping[str, Any], *argv: str) -> None:
    """Run a command in the guest, as pyinfra's user; an OSError if it fails."""
    command = StringCommand(*map(QuoteString, argv))
    succeeded, output = connector.run_shell_command(command, **arguments)
    if not succeeded:
        raise OSError(printable(output.stderr.strip()) or f"{argv[0]} failed in the guest")


def move(source: Any, target: Any) -> None:
    """Copy the bytes of a file; a text file is encoded."""
    while piece := source.read(CHUNK):
        target.write(piece.encode() if isinstance(piece, str) else piece)
