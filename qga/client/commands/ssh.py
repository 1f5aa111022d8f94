"""The keys that may log in to an account of the guest by ssh."""

from __future__ import annotations

import re
from collections.abc import Iterable

from qga.client.connection import Connection
from qga.client.errors import CommandError

# The error messages of QEMU's agent and qga.
NO_FILE = re.compile(r"failed to read '.*': .*: No such file or directory", re.DOTALL)


class Ssh(Connection):
    """Each key is a line of the user's ~/.ssh/authorized_keys."""

    def ssh_keys(self, username: str) -> list[str]:
        """The keys; none if the user has no such file, which agents report as an error."""
        command = "guest-ssh-get-authorized-keys"
        try:
            return self._ask(command, list[str], "keys", username=username)
        except CommandError as error:
            if NO_FILE.fullmatch(error.desc):
                return []
            raise

    def add_ssh_keys(self, username: str, keys: Iterable[str], *, reset: bool = False) -> None:
        """Add keys that are not there yet. `reset`: remove all others first."""
        self.call("guest-ssh-add-authorized-keys", username=username, keys=list(keys), reset=reset)

    def remove_ssh_keys(self, username: str, keys: Iterable[str]) -> None:
        """Remove keys. Keys that are not there are ignored."""
        self.call("guest-ssh-remove-authorized-keys", username=username, keys=list(keys))
