"""Programs in the guest."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Union, cast

from qga.client.connection import Connection
from qga.client.errors import AgentTimeout
from qga.client.results import ExecResult
from qga.client.shapes import encode_base64, member, shaped

if TYPE_CHECKING:
    from qga.client.agent import GuestAgent

Capture = Union[bool, Literal["none", "stdout", "stderr", "separated", "merged"]]

# Seconds between two looks at a running program: the first, the longest, and the growth.
FIRST_DELAY, LONGEST_DELAY, DELAY_GROWTH = 0.001, 0.5, 1.5


class Exec(Connection):
    def exec(
        self,
        argv: Sequence[str],
        *,
        input: bytes | None = None,
        env: Mapping[str, str] | None = None,
        capture: Capture = True,
        timeout: float = math.inf,
    ) -> ExecResult:
        """Run a program in the guest and wait for its end, at most `timeout` seconds.

        The first of `argv` is a path, or a name looked up in the guest's PATH. `input` is what
        the program reads from its standard input; without it that is /dev/null. `env`
        *replaces* the program's environment. `capture` is True for both streams, False for
        none, or one of the words of newer agents. After AgentTimeout the program runs on.

        By libvirt, which carries no large replies, the output comes by qga-exec, and AgentTimeout
        ends the program; of an agent without that it is kept in files of the guest meanwhile, and
        an end by a signal is an exit code of 128 + the signal.
        """
        check_argv(argv)
        if capture in (True, "separated", "merged") and self.max_output() is not None:
            from qga.client import captured

            agent, merged = cast("GuestAgent", self), capture == "merged"
            return captured.run(agent, argv, input=input, env=env, merged=merged, timeout=timeout)
        return self.exec_wait(self.exec_start(argv, input=input, env=env, capture=capture), timeout)

    def exec_start(
        self,
        argv: Sequence[str],
        *,
        input: bytes | None = None,
        env: Mapping[str, str] | None = None,
        capture: Capture = True,
    ) -> int:
        """Start a program likewise; its pid in the guest.

        By libvirt `exec_status` fails for one that writes more than 3 MiB: use `exec` there.
        """
        check_argv(argv)
        arguments: dict[str, Any] = {
            "path": argv[0],
            "arg": list(argv[1:]),
            "capture-output": capture,
        }
        if input is not None:
            arguments["input-data"] = encode_base64(input)
        if env is not None:
            arguments["env"] = environment_of(env)
        return self._ask("guest-exec", int, "pid", **arguments)

    def exec_status(self, pid: int) -> ExecResult | None:
        """How a program that `exec_start` started has ended, told only once; None if it runs."""
        command = "guest-exec-status"
        reply = self.call(command, pid=pid)
        with self._telling(command):
            return shaped(ExecResult, reply) if member(bool, "exited", reply) else None

    def exec_wait(self, pid: int, timeout: float = math.inf) -> ExecResult:
        """Wait for the end of a program that `exec_start` started."""
        deadline = time.monotonic() + timeout
        delay = FIRST_DELAY
        while True:
            result = self.exec_status(pid)
            if result is not None:
                return result
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                reason = f"process {pid} still runs in the guest"
                raise AgentTimeout(self.address, "guest-exec", timeout, reason)
            time.sleep(min(delay, remaining))
            delay = min(delay * DELAY_GROWTH, LONGEST_DELAY)


def check_argv(argv: Sequence[str]) -> None:
    if isinstance(argv, str) or not argv:
        raise ValueError(f"argv must be a list of at least one string, not {argv!r}")


def environment_of(variables: Mapping[str, str]) -> list[str]:
    """Variables as commands have them."""
    return [f"{name}={value}" for name, value in variables.items()]
