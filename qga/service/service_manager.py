"""Notifications to systemd: that the agent is ready, what it serves, and that its loop runs.

They use the protocol of sd_notify(3), a datagram to a socket, which is stable and meant to be used
without a library. `_socket` takes a twentieth of the memory of `socket` or of systemd-python's
`daemon`, and the unit also starts without systemd-python.

What must stay true: a notification never waits, never fails and touches no filesystem but /run,
because it is sent while the others are frozen. Without a watchdog no timer runs. With one, the loop
sends the pings, so that a command that hangs on a worker is not mistaken for a stuck loop.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from qga.loop import Loop


class ServiceManager:
    """The service manager that has started this process, according to its environment; or none."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._status = ""
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # an abstract socket
            self._address = "\0" + self._address[1:]
        if self._address:
            from _socket import AF_UNIX, SOCK_DGRAM, socket

            self._socket = socket(AF_UNIX, SOCK_DGRAM)
            self._socket.setblocking(False)
        self._ping_interval = _watchdog_seconds(environment) / 2

    def ready(self) -> None:
        """The agent is ready."""
        self._notify("READY=1")

    def status(self, text: str) -> None:
        """Set the text that `systemctl status` shows; safe to call from any thread."""
        if text != self._status:
            self._status = text
            self._notify(f"STATUS={text}")

    def stopping(self) -> None:
        """The agent is about to exit."""
        self._notify("STOPPING=1")

    def keep_alive(self, loop: Loop) -> None:
        """Ping the watchdog, if there is one, while the loop runs."""
        if self._address and self._ping_interval:
            self._notify("WATCHDOG=1")
            loop.call_later(self._ping_interval, lambda: self.keep_alive(loop))

    def close(self) -> None:
        """Send no further notifications."""
        if self._address:
            self._address = ""
            self._socket.close()

    def _notify(self, assignment: str) -> None:
        if self._address:
            try:
                self._socket.sendto(os.fsencode(assignment), self._address)
            except OSError:  # its queue is full, or it is gone
                pass


def passes_sockets(environment: Mapping[str, str], pid: int) -> bool:
    """Whether the process with this environment was started with sockets (sd_listen_fds(3))."""
    return environment.get("LISTEN_PID") == str(pid)


def _watchdog_seconds(environment: Mapping[str, str]) -> float:
    """The watchdog's time limit (sd_watchdog_enabled(3)); 0 without a watchdog."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0
    microseconds = environment.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdecimal() else 0
