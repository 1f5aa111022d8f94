"""The command of a connection that has not ended yet, and how long the connection waits for it.

What must stay true:

- A command that has not ended within `command-timeout` is answered with an error. Whatever becomes
  of it afterwards is only logged.
- A command that overtakes (guest-sync, guest-sync-delimited) means that the client has given up on
  everything before it. It waits at most PATIENCE, so that a client that merely sent several
  requests at once loses no reply. Then the running command is abandoned: its reply is dropped when
  it comes, and the requests between the two are not carried out.
- A command can find out that nobody waits for its reply any longer, and stop (qga.task).
"""

from __future__ import annotations

import time

from qga.errors import QgaError
from qga.wire.protocol import encode_error
from qga.wording import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qga.loop import Timer
    from qga.plugin.entry import Command
    from qga.serving.audit import Entry
    from qga.serving.output import Output
    from qga.serving.pending import Pending
    from qga.serving.server import Server
    from qga.serving.session import Session
    from qga.task import Task
    from qga.wire.protocol import Request

PATIENCE = 1.0
"""Seconds that a sync waits for the running command."""


class Running:
    """A command on a worker thread, or one that was postponed (NotYet).

    connection: the connection that asked for it.
    request: what to carry out later; set only if the command was postponed.
    task: the worker's task; set only if the command is on a thread.
    unheard: whether nobody is left to read the reply.
    """

    __slots__ = (
        *("command", "connection", "entry", "id", "is_limited", "request", "since", "task"),
        "unheard",
    )

    def __init__(
        self,
        command: Command,
        id: Any,
        connection: Session,
        entry: Entry | None = None,
        request: Request | None = None,
    ) -> None:
        self.command = command
        self.id = id
        self.connection = connection
        self.entry = entry
        self.request = request
        self.unheard = False
        self.since = time.monotonic()
        self.task: Task | None = None
        self.is_limited = False  # to PATIENCE

    def give_up(self) -> None:
        """Let the command know that nobody waits for its reply any longer."""
        if self.task is not None:
            self.task.given_up = True

    @property
    def age(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.since


class UnderWay:
    """The one command of a connection that is under way, and the limits on it.

    running: that command, or None.
    """

    def __init__(self, agent: Server, channel: str, pending: Pending, output: Output) -> None:
        self.running: Running | None = None
        self._loop = agent.loop
        self._log = agent.log
        self._timeout = agent.config.command_timeout
        self._channel = channel
        self._pending = pending
        self._output = output
        self._timer: Timer | None = None

    def begin(self, running: Running) -> None:
        """Make later requests wait for this command, as long as the limits allow."""
        self.running = running
        # One timer for the connection, not one for each command: they may come by the thousand.
        if running.task is not None and self._timeout and self._timer is None:
            self._check_time_in(self._timeout)
        if self._pending.overtaking:
            self.limit_patience()

    def limit_patience(self) -> None:
        """Wait at most PATIENCE for the running command if a sync is waiting behind it."""
        running = self.running
        if running is None or running.is_limited or not self._pending.overtaking:
            return
        running.is_limited = True
        wait = max(0.0, PATIENCE - running.age)
        self._loop.call_later(wait, lambda: self._abandon(running))

    def report(self, running: Running, fate: str) -> None:
        """Log what has become of a command that hangs."""
        name = running.command.name
        self._log.warning(f"{name} {fate}", "given-up", command=name, channel=self._channel)

    def _check_time_in(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._check_time)

    def _check_time(self) -> None:
        self._timer = None
        running = self.running
        if running is None or running.connection.closed:
            return
        if running.age < self._timeout:
            self._check_time_in(self._timeout - running.age)
        elif running.command.timed:
            self._expire(running)

    def _expire(self, running: Running) -> None:
        self.running = None
        running.give_up()
        self.report(running, f"timed out after {running.age:.1f} s; it may still be running")
        error = QgaError(
            f"{running.command.name} did not finish within {self._timeout} s (command-timeout); "
            "it may still be running"
        )
        self._output.append([encode_error(error, running.id)])
        running.connection.proceed()

    def _abandon(self, running: Running) -> None:
        """Give up on a command that still runs, and on the requests between it and a sync."""
        if self.running is not running or running.connection.closed:
            return
        self.running = None
        running.give_up()
        dropped = counted(self._pending.drop_overtaken(), "later request")
        self.report(
            running,
            f"abandoned after {running.age:.1f} s with {dropped}: the client sent a new sync",
        )
        running.connection.proceed()
