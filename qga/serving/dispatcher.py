"""Carries out the requests of one connection: request, policy, command, reply.

What must stay true:

- A command that never waits runs at once, on the loop. One that may wait runs on a worker thread,
  and the connection proceeds when it has finished.
- A request that cannot be carried out yet (NotYet) waits without a thread, and is forgotten when
  the client gives up on it.
- When a command succeeds and nobody gets its reply, its group is notified (`on_unheard`): the
  client has left, has sent a new sync, or sends one as its next request.
- Every refusal and every change is recorded in the audit trail.
"""

from __future__ import annotations

from qga.errors import CommandNotFound, NotYet, QgaError, Refused
from qga.serving.audit import MAX_NAME, Entry
from qga.serving.running import PATIENCE, Running
from qga.wire.fast import MOST_KNOWN
from qga.wire.protocol import ABSENT, DELIMITER, Fault, Request, encode_error, encode_return

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from qga.plugin.entry import Command
    from qga.policy.caller import Caller
    from qga.serving.output import Output
    from qga.serving.running import UnderWay
    from qga.serving.server import Server
    from qga.serving.session import Session
    from qga.wire.payload import Part
    from qga.wire.protocol import Event


class Dispatcher:
    """Finds, checks and calls the command of each request, and appends its reply to `output`.

    The connection is an argument of each request, not an attribute: a reference cycle would keep
    the memory of a closed connection until the garbage collector runs.
    """

    def __init__(self, agent: Server, caller: Caller, under_way: UnderWay, output: Output) -> None:
        self._agent = agent
        self._find = agent.registry.get
        self._audit = agent.audit
        self._records_reads = agent.audit.reads
        self._records_changes = agent.audit.changes
        self._verbose = agent.config.verbose
        self._caller = caller
        self._policy = caller.policy
        self._under_way = under_way
        self._output = output
        self._answered_last: Command | None = None  # by a worker, and nothing has come since
        self._repeated: dict[bytes, tuple[Callable[[], Any], bool]] = {}

    def carry_out(self, event: Event, connection: Session, again: bool = False) -> None:
        """Answer a request, or begin to: then `connection.proceed` is called when it has ended.

        again: whether the request could not be carried out before.
        """
        if isinstance(event, Fault):
            self._answer_fault(event)
            return
        name, given, request_id = event
        command = self._find(name)
        if (self._verbose or self._answered_last is not None) and not again:
            self._note(name, command)
        try:
            if command is None:
                raise CommandNotFound(f"The command {name} has not been found")
            self._policy.check(command, self._agent.frozen)
            if command.deferred is not None and not self._complete(command, event, connection):
                return
            arguments = command.bind(given, self._caller)
        except BaseException as error:
            self._refuse(name, error, request_id)
            self._audit.record_refusal(self._caller, name, command, error)
            return
        recorded = self._records_changes if command.changes else self._records_reads
        entry = Entry(self._caller, command, given) if recorded else None
        try:
            if command.at_once is None:
                self._run(Running(command, request_id, connection, entry), arguments)
                return
            try:
                result = command.at_once(**arguments)
            except BlockingIOError:
                if not command.blocking:
                    raise
                self._run(Running(command, request_id, connection, entry), arguments)
                return
            self._output.append(_encode(command, result, request_id))
        except NotYet:
            self._agent.postponed.add(connection)
            self._under_way.begin(Running(command, request_id, connection, request=event))
        except BaseException as error:  # a plugin may raise anything, even SystemExit
            self._record(command, entry, error, self._refuse(name, error, request_id))
        else:
            if entry is not None:
                self._record(command, entry)

    def repeat(self, line: bytes) -> bytes | None:
        """The reply to a request that is known by its line, in as few steps as possible.

        None for any other, and where more has to be done than to call the handler. Any error is
        left to `carry_out`, which calls it again.
        """
        known = self._repeated.get(line)
        if known is None or self._agent.frozen or self._under_way.running is not None:
            return None
        if self._answered_last is not None:
            return None
        call, with_numbers = known
        try:
            [reply] = encode_return(call(), ABSENT, with_numbers)
        except BaseException:
            return None
        return reply  # type: ignore[return-value]

    def learn(self, line: bytes, request: Request) -> None:
        """Have `repeat` answer a line, which is a request without arguments and id.

        Only if the command is simple and leaves no trace in the log. What was checked for it now
        stays true until a freeze.
        """
        command = self._find(request.execute)
        if command is None or not command.is_simple or self._verbose or self._records_reads:
            return
        call, caller = command.at_once, self._caller
        if call is None or not self._policy.allows(command, False):
            return
        if len(self._repeated) >= MOST_KNOWN:
            self._repeated.clear()
        with_caller = (lambda: call(caller=caller)) if command.wants_caller else call
        self._repeated[line] = with_caller, command.carries_number

    def forget_client(self) -> bool:
        """Drop what only the client that has left was waiting for; whether others can continue."""
        self._answered_last = None
        running = self._under_way.running
        if running is None:
            return False
        running.unheard = True
        running.give_up()
        if running.request is not None:
            self._under_way.running = None
        return running.request is not None

    def _answer_fault(self, fault: Fault) -> None:
        self._output.append([encode_error(fault.error, fault.id)])
        if self._verbose:
            self._audit.record_fault(self._caller, fault.error)

    def _note(self, name: str, command: Command | None) -> None:
        """Log a request, and whether the client has heard the reply before it.

        A sync right after a reply shows that the client did not wait for that reply. A delimited
        sync does not show it: clients that connect anew for each command begin with one.
        """
        if self._verbose:
            # "read data" is what test suites written for QEMU's agent search for.
            self._agent.log.debug(f"channel {self._caller.channel}: read data: {name[:MAX_NAME]}")
        answered, self._answered_last = self._answered_last, None
        if answered and command and command.overtakes and not command.delimited:
            self._agent.report_unheard(answered)

    def _complete(self, command: Command, event: Request, connection: Session) -> bool:
        """Import the group of a command where the command runs; whether it is ready already."""
        if command.deferred is None or not command.blocking:
            self._agent.complete(command)
            return True
        running = Running(command, event.id, connection)
        running.task = self._agent.worker.submit(
            command.deferred.load,
            lambda _, error: self._go_on(running, event, error),
            urgent=command.frozen,
            channel=self._caller.channel,
        )
        self._under_way.begin(running)
        return False

    def _go_on(self, running: Running, event: Request, error: BaseException | None) -> None:
        """The group of a command was imported."""
        if running is not self._under_way.running:
            return
        self._under_way.running = None
        try:
            if error is not None:
                raise error
            self._agent.complete(running.command)
        except BaseException as failure:
            self._refuse(running.command.name, failure, running.id)
        else:
            self.carry_out(event, running.connection, again=True)
        running.connection.proceed()

    def _run(self, running: Running, arguments: dict[str, Any]) -> None:
        """Have the worker carry out a blocking command."""
        command, request_id = running.command, running.id
        handler = command.handler
        running.task = self._agent.worker.submit(
            lambda: _encode(command, handler(**arguments), request_id),
            lambda parts, error: self._finish(running, parts, error),
            urgent=command.frozen,
            channel=self._caller.channel,
        )
        running.task.given_up = running.connection.closed
        self._under_way.begin(running)

    def _finish(self, running: Running, parts: list[Part], error: BaseException | None) -> None:
        """A command on the worker has ended."""
        if running is not self._under_way.running:
            fate = f"finished after {running.age:.1f} s; its reply is dropped"
            self._under_way.report(running, fate)
            self._finish_unheard(running, error)
            return
        self._under_way.running = None
        if _is_unheard(running):
            self._finish_unheard(running, error)
        elif error is None:
            self._output.append(parts)
            self._answered_last = running.command
            self._record(running.command, running.entry)
        else:
            answer = self._refuse(running.command.name, error, running.id)
            self._record(running.command, running.entry, error, answer)
        running.connection.proceed()

    def _finish_unheard(self, running: Running, error: BaseException | None) -> None:
        self._record(running.command, running.entry, error)
        if error is None:
            self._agent.report_unheard(running.command)

    def _record(
        self,
        command: Command,
        entry: Entry | None,
        error: BaseException | None = None,
        answer: QgaError | None = None,
    ) -> None:
        """Add to the audit trail; `answer` is the error as the client saw it."""
        if isinstance(error, Refused):
            self._audit.record_refusal(self._caller, command.name, command, error)
        elif entry is not None:
            # A fault may quote a secret in any way, and the answer quotes the fault.
            is_of_system = isinstance(error, OSError) and error.strerror
            is_fault = not is_of_system and not isinstance(error, QgaError)
            self._audit.record(entry, error if command.secret and is_fault else answer or error)

    def _refuse(self, name: str, error: BaseException, id: Any) -> QgaError:
        """Answer with an error, and return it as the client sees it."""
        if not isinstance(error, QgaError):
            error = self._agent.report_fault(name, error)
        elif isinstance(error, Refused):
            error = QgaError(f"Command {name} has been refused: {error.desc}")
        self._output.append([encode_error(error, id)])
        return error


def _is_unheard(running: Running) -> bool:
    connection = running.connection
    if running.unheard or connection.closed:
        return True
    # A host that has just connected to a port is not visible yet either (Session._hang_up), but
    # not for long.
    return running.age >= PATIENCE and connection.peer_has_left()


def _encode(command: Command, result: Any, id: Any) -> list[Part]:
    """The reply to a command that has succeeded."""
    if not command.success_response:
        return []
    parts = encode_return(result, id, command.carries_number)
    return [DELIMITER, *parts] if command.delimited else parts
