"""The guest's users and their passwords."""

from __future__ import annotations

from qga.client.connection import Connection
from qga.client.conversion import encode_base64
from qga.client.results import User

PATIENCE = 90.0
"""Seconds: the agent gives chpasswd(8), which may ask a server, one minute."""


class Users(Connection):
    def users(self) -> list[User]:
        """The logged-in users, each once, with the earliest login."""
        return self._ask("guest-get-users", list[User])

    def set_password(
        self,
        username: str,
        password: str | bytes,
        *,
        crypted: bool = False,
        timeout: float = PATIENCE,
    ) -> None:
        """Set a user's password; `crypted`: whether it is already a hash of crypt(3)."""
        raw = password.encode() if isinstance(password, str) else password
        self._ask_patiently(
            "guest-set-user-password",
            dict,
            timeout=timeout,
            username=username,
            password=encode_base64(raw),
            crypted=crypted,
        )
