"""Programs of the guest with streamed input and output; see qga.client.programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qga.client.commands.exec import check_argv, environment_of
from qga.client.connection import Connection
from qga.client.conversion import converted, encode_base64, share
from qga.client.program_options import DEFAULT_OPTIONS, ProgramOptions
from qga.client.results import ExecOutput, StartedProgram

PORT_PATIENCE = 15.0
"""Seconds; the agent itself waits some seconds for the host to connect to a port."""


class Streams(Connection):
    def stream_start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        port: str | None = None,
        terminal: tuple[int, int] | None = None,
        term: str = "",
        options: ProgramOptions = DEFAULT_OPTIONS,
    ) -> StartedProgram:
        """Start a program in the guest.

        `env` *replaces* its environment. `port` is a connected data port for its input and output;
        without it, use `stream_write` and `stream_read`. `terminal` gives it a terminal with that
        many rows and columns, of the type `term`.
        """
        check_argv(argv)
        arguments: dict[str, Any] = {"path": argv[0], "arg": list(argv[1:])}
        if env is not None:
            arguments["env"] = environment_of(env)
        patience = self.timeout
        if port is not None:
            arguments["port"] = port
            patience = max(patience, PORT_PATIENCE)
        if terminal is not None:
            rows, columns = terminal
            arguments.update(tty=True, rows=rows, columns=columns, term=term)
        arguments.update(options.on_the_wire())
        command = "qga-exec"
        reply = self.call(command, arguments, timeout=patience)  # which has a `timeout`, too
        with self._telling(command):
            return converted(StartedProgram, reply)

    def stream_read(self, pid: int, offset: int = 0, err_offset: int = 0) -> ExecOutput:
        """Read its output from these offsets on. The agent drops everything before them."""
        return self._ask("qga-exec-read", ExecOutput, pid=pid, offset=offset, err_offset=err_offset)

    def stream_write(self, pid: int, data: bytes) -> int:
        """Write input, and return how many bytes were accepted, maybe not all."""
        command, data = "qga-exec-write", data[: self.max_data()]
        count = self._ask(command, int, "count", pid=pid, buf_b64=encode_base64(data))
        with self._telling(command):
            return share(count, len(data))

    def stream_end(self, pid: int, after: int | None = None) -> None:
        """Close its standard input; with a data port, after this many bytes of input."""
        end = {} if after is None else {"after": after}
        self.call("qga-exec-write", pid=pid, eof=True, **end)

    def stream_signal(self, pid: int, signal: int | str) -> None:
        """Send a signal, such as 2 or "INT", to its process group."""
        self.call("qga-exec-signal", pid=pid, signal=signal)

    def stream_resize(self, pid: int, rows: int, columns: int) -> None:
        """Change the size of its terminal."""
        self.call("qga-exec-resize", pid=pid, rows=rows, columns=columns)
