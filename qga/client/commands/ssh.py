"""The keys that may log in to an account of the guest by ssh."""

from __future__ import annotations

from collections.abc import Iterable

from qga.client.connection import Connection


class Ssh(Connection):
    """Each key is a line of the user's ~/.ssh/authorized_keys."""

    def ssh_keys(self, username: str) -> list[str]:
        return self._ask("guest-ssh-get-authorized-keys", list[str], "keys", username=username)

    def add_ssh_keys(self, username: str, keys: Iterable[str], *, reset: bool = False) -> None:
        """Add keys, those that are there not again; `reset`: take all others away first."""
        self.call("guest-ssh-add-authorized-keys", username=username, keys=list(keys), reset=reset)

    def remove_ssh_keys(self, username: str, keys: Iterable[str]) -> None:
        """Take keys away; those that are not there are no error."""
        self.call("guest-ssh-remove-authorized-keys", username=username, keys=list(keys))
