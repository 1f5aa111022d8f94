"""pyinfra reaches guests through their agents: `pyinfra @qga/web exec -- uptime`.

`@qga/` is followed by the name of a guest or by another address of docs/host.md; `@qga` alone is
every guest of this host that answers. Commands run as the agent's user, which is root, or as
`qga_user`; `_sudo`, `_su_user` and the like come on top, as over ssh.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from pyinfra import logger
from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import ConnectError, InventoryError
from pyinfra.api.output import echo, format_text
from pyinfra.connectors.base import BaseConnector, DataMeta
from pyinfra.connectors.util import (
    CommandOutput,
    OutputLine,
    execute_command_with_sudo_retry,
    make_unix_command_for_host,
)
from typing_extensions import TypedDict

from qga.client import AgentError, GuestAgent, captured, each, find_guests
from qga.client.addresses import is_name
from qga.client.errors import ProgramTimeout
from qga.client.program_options import ProgramOptions
from qga.client.texts import printable
from qga.integrations.pyinfra_files import get_file, put_file
from qga.wording import counted

NONE_ANSWERS = "no guest of this host answers; `qgactl list` and `qgactl doctor GUEST` show why"

# An empty line takes some hundred bytes here.
MOST_LINES = 200_000


class QgaData(TypedDict):
    qga_address: str
    qga_user: str
    qga_timeout: float


class QgaConnector(BaseConnector):
    """A guest, by way of its agent. It needs no network, and a shell."""

    handles_execution = True
    data_cls = QgaData
    data_meta = {  # noqa: RUF012 - as the base class has it
        "qga_address": DataMeta("Name or address of the guest"),
        "qga_user": DataMeta("User that runs commands and owns files (default: the agent's, root)"),
        "qga_timeout": DataMeta("Seconds to wait for an answer (default: CONNECT_TIMEOUT)"),
    }
    agent: GuestAgent

    @staticmethod
    def make_names_data(name: str | None = None) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
        """Yield the guest `name`, or all guests that answer."""
        for address in [name] if name else answering():
            yield f"@qga/{address}", {"qga_address": address}, ["@qga"]

    def connect(self) -> None:
        seconds = self.data["qga_timeout"] or self.state.config.CONNECT_TIMEOUT
        try:
            self.agent = GuestAgent(self.data["qga_address"], seconds)
            self.agent.sync()
        except (AgentError, ValueError) as error:
            raise ConnectError(printable(str(error))) from None

    def disconnect(self) -> None:
        self.agent.close()

    def run_shell_command(
        self,
        command: StringCommand,
        print_output: bool = False,
        print_input: bool = False,
        **arguments: Any,
    ) -> tuple[bool, CommandOutput]:
        stdin, timeout = arguments.pop("_stdin", None), arguments.pop("_timeout", None)
        expected = arguments.pop("_success_exit_codes", None) or [0]
        arguments.pop("_get_pty", None)

        def execute() -> tuple[int, CommandOutput]:
            line = make_unix_command_for_host(self.state, self.host, command, **arguments)
            self.say(f">>> {line}", print_input)
            return self._run(line.get_raw_value(), input_of(stdin), timeout, print_output)

        status, output = execute_command_with_sudo_retry(self.host, cast(Any, arguments), execute)
        return status in expected, output

    def _run(
        self, line: str, input: bytes | None, timeout: float | None, print_output: bool
    ) -> tuple[int, CommandOutput]:
        lines = Lines(self, print_output)
        options = ProgramOptions(user=self.data["qga_user"], timeout=timeout or math.inf)
        with errors_of_pyinfra():
            argv = ["/bin/sh", "-c", line]
            result = captured.run(self.agent, argv, options, input=input, watch=lines.take)
        output = lines.end()
        if result.stdout_truncated or result.stderr_truncated or lines.left_out:
            logger.warning(f"{self.host.print_prefix}{too_long(lines.left_out)}")
        return result.status, output

    def put_file(
        self,
        filename_or_io: Any,
        remote_filename: str,
        remote_temp_filename: str | None = None,
        print_output: bool = False,
        print_input: bool = False,
        **arguments: Any,
    ) -> bool:
        """Files belong to the user that would run commands; new ones have the mode 0644."""
        with errors_of_pyinfra():
            put_file(self, filename_or_io, remote_filename, arguments)
        self.say(f"file uploaded: {remote_filename}", print_output)
        return True

    def get_file(
        self,
        remote_filename: str,
        filename_or_io: Any,
        remote_temp_filename: str | None = None,
        print_output: bool = False,
        print_input: bool = False,
        **arguments: Any,
    ) -> bool:
        with errors_of_pyinfra():
            get_file(self, remote_filename, filename_or_io, arguments)
        self.say(f"file downloaded: {remote_filename}", print_output)
        return True

    def say(self, text: str, wanted: bool) -> None:
        if wanted:
            echo(f"{self.host.print_prefix}{text}", err=True)


class Lines:
    """The first MOST_LINES lines of both output streams, in the order in which they come."""

    def __init__(self, connector: QgaConnector, print_output: bool) -> None:
        self._connector = connector
        self._print = print_output
        self._lines: list[OutputLine] = []
        self.left_out = 0
        self._unfinished: dict[str, list[bytes]] = {"stdout": [], "stderr": []}

    def take(self, stream: str, data: bytes) -> None:
        head, newline, rest = data.rpartition(b"\n")
        if newline:
            self._add_all(stream, b"".join([*self._unfinished[stream], head]))
            self._unfinished[stream].clear()
        if rest:
            self._unfinished[stream].append(rest)

    def end(self) -> CommandOutput:
        for stream, parts in self._unfinished.items():
            if parts:
                self._add_all(stream, b"".join(parts))
        return CommandOutput(self._lines)

    def _add_all(self, stream: str, text: bytes) -> None:
        room = MOST_LINES - len(self._lines)
        lines = text.split(b"\n", room)
        for line in lines[:room]:
            self._add(stream, line)
        for rest in lines[room:]:
            self.left_out += 1 + rest.count(b"\n")

    def _add(self, stream: str, line: bytes) -> None:
        text = line.decode(errors="replace")
        self._lines.append(OutputLine(stream, text))
        self._connector.say(format_text(text, "red") if stream == "stderr" else text, self._print)


def too_long(left_out: int) -> str:
    lines = f"; {counted(left_out, 'line')} came after the first {MOST_LINES}" if left_out else ""
    return f"the output is too long: its end is missing{lines}"


def input_of(stdin: Any) -> bytes | None:
    """The standard input of a command: a string, lines or a text file. Every line gets its end."""
    if not stdin:
        return None
    lines = stdin.readlines() if hasattr(stdin, "readlines") else stdin
    lines = [lines] if isinstance(lines, str) else lines
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines).encode()


def answering() -> Iterator[str]:
    """The names of the guests of this host that answer; an address where a name is not enough."""
    found = find_guests()
    names = Counter(guest.name for guest in found)
    errors = {str(outcome.guest): outcome.error for outcome in each(found, GuestAgent.ping)}
    for guest in found:
        if error := errors[guest.address]:
            logger.warning(printable(f"@qga: {error}"))
        else:
            unique = names[guest.name] == 1 and is_name(guest.name)
            yield guest.name if unique else guest.address
    if all(errors.values()):
        raise InventoryError(NONE_ANSWERS)


@contextmanager
def errors_of_pyinfra() -> Iterator[None]:
    """pyinfra reports an OSError and goes on with other hosts; it drops a TimeoutError's text."""
    try:
        yield
    except ProgramTimeout:
        raise TimeoutError from None
    except (AgentError, ValueError) as error:
        raise OSError(printable(str(error))) from None
