"""What systemd is told: that the agent serves, what it serves, and that its loop goes round.

The protocol of sd_notify(3), which is stable and meant to be spoken without a library: a datagram
to a socket. Over `_socket`, which is all of that module that is needed and a twentieth of the
memory of either `socket` or systemd-python's `daemon`; the unit then starts also where
systemd-python is missing.

What must stay true: telling never waits, never fails and touches no filesystem but /run, for it is
done while the others are frozen. Without a watchdog no timer runs, and with one it is the loop that
pings: a command that hangs on a worker is not taken for a loop that is stuck.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qga.loop import Loop


class ServiceManager:
    """The service manager that has started this process, as its environment tells; or none."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._status = ""
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # an abstract one
            self._address = "\0" + self._address[1:]
        if self._address:
            from _socket import AF_UNIX, SOCK_DGRAM, socket

            self._socket = socket(AF_UNIX, SOCK_DGRAM)
            self._socket.setblocking(False)
        self._ping_interval = _watchdog_seconds(environment) / 2

    def ready(self) -> None:
        """The agent serves from now on."""
        self._tell("READY=1")

    def status(self, text: str) -> None:
        """What `systemctl status` is to say; any thread may tell it."""
        if text != self._status:
            self._status = text
            self._tell(f"STATUS={text}")

    def stopping(self) -> None:
        """The agent is about to end."""
        self._tell("STOPPING=1")

    def keep_alive(self, loop: Loop) -> None:
        """Ping the watchdog, if there is one, for as long as the loop goes round."""
        if self._address and self._ping_interval:
            self._tell("WATCHDOG=1")
            loop.call_later(self._ping_interval, lambda: self.keep_alive(loop))

    def close(self) -> None:
        """Tell nothing any more."""
        if self._address:
            self._address = ""
            self._socket.close()

    def _tell(self, assignment: str) -> None:
        if self._address:
            try:
                self._socket.sendto(os.fsencode(assignment), self._address)
            except OSError:  # it is busy, or gone
                pass


def passes_sockets(environment: Mapping[str, str], pid: int) -> bool:
    """Whether the process with this environment was started with sockets (sd_listen_fds(3))."""
    return environment.get("LISTEN_PID") == str(pid)


def _watchdog_seconds(environment: Mapping[str, str]) -> float:
    """How long the loop may be silent, by sd_watchdog_enabled(3); 0 without a watchdog."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0
    microseconds = environment.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdecimal() else 0
