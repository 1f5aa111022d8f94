"""Testinfra reaches guests through their agents: `pytest --hosts=qga://web`.

`qga://` is followed by the name of a guest, by a pattern such as `web*`, or by nothing, which is
every guest of this host. A slash in another address is written as %2F, and `qga://alice@web` runs
commands as alice. `?timeout=60` limits the seconds of each command.
"""

from __future__ import annotations

import fnmatch
import math
from typing import Any
from urllib.parse import unquote

from testinfra.backend.base import BaseBackend, CommandResult

from qga.client import GuestAgent, find_guests
from qga.integrations import ANSWER_PATIENCE


class QgaBackend(BaseBackend):
    NAME = "qga"

    def __init__(
        self, name: str, *args: Any, timeout: float | str | None = None, **kwargs: Any
    ) -> None:
        address, self.user = self.parse_containerspec(name)
        self.timeout = float(timeout or math.inf)
        self.agent = GuestAgent(unquote(address), min(self.timeout, ANSWER_PATIENCE))
        super().__init__(name, *args, **kwargs)

    @classmethod
    def get_hosts(cls, host: str, **kwargs: Any) -> list[str]:
        """The guests of this host that a pattern means; anything else is one guest."""
        user, at, name = (host or "").rpartition("@")
        if name and "*" not in name:
            return [host]
        found = sorted({guest.name for guest in find_guests()})
        fitting = fnmatch.filter(found, name or "*")
        if not fitting:
            names = ", ".join(found) or "none"
            raise RuntimeError(f"qga://{host}: no such guest runs on this host; there are: {names}")
        return [f"{user}{at}{guest}" for guest in fitting]

    def run(self, command: str, *args: str, **kwargs: Any) -> CommandResult:
        """Run a shell command. `stdin` is its input; `timeout`: seconds, else those of the host."""
        line = self.get_command(command, *args)
        with self.agent:  # QEMU serves one client at a time: others get their turn between commands
            result = self.agent.exec(
                ["/bin/sh", "-c", line],
                input=kwargs.get("stdin"),
                user=self.user,
                timeout=kwargs.get("timeout", self.timeout),
            )
        return self.result(result.status, line.encode(), result.stdout, result.stderr)
