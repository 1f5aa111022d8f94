"""A program that asks for a password before it becomes another user (sudo, su).

What must stay true: the password is sent only after the prompt, and other input only after the
change of user, so that neither is read by a program that it is not meant for.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleConnectionFailure

from qga.client import CommandNotFound, StreamedProgram
from qga.client.captured import finished

if TYPE_CHECKING:
    from qga.client import ExecResult, GuestAgent

PAUSE = 0.02
"""Seconds between two looks at the output."""

MOST_SAID = 64 * 1024
"""Bytes that sudo or su may write before the program starts."""


def run(
    agent: GuestAgent, argv: list[str], user: str, data: bytes, become: Any, timeout: float
) -> ExecResult:
    """Run a command of the become plugin, and answer its prompt. `timeout`: for the prompt."""
    try:
        program = StreamedProgram(agent, argv, user=user)
    except CommandNotFound:
        raise AnsibleConnectionFailure(
            f"{agent.address}: a password for {become.name} requires qga in the guest, because "
            "QEMU's agent passes input only at the start"
        ) from None
    with program:
        out, err = Dialogue(program, become, time.monotonic() + timeout).hold()
        rest = finished(program, None if program.exited else data, math.inf)
    return rest._replace(stdout=out + rest.stdout, stderr=err + rest.stderr)


class Dialogue:
    """What passes before the change of user. `deadline` as of time.monotonic()."""

    def __init__(self, program: StreamedProgram, become: Any, deadline: float) -> None:
        self._program = program
        self._become = become
        self._deadline = deadline
        self._out = self._err = b""
        self._answered = False

    def hold(self) -> tuple[bytes, bytes]:
        """Return the output so far, once the user has changed or the program has exited."""
        while not (self._become.check_success(self._out) or self._program.exited):
            self._look()
            self._check()
            time.sleep(PAUSE)
        return self._out, self._err

    def _look(self) -> None:
        said = self._program.poll()
        self._out += said.stdout
        self._err += said.stderr
        if not self._answered and self._is(self._become.check_password_prompt):
            password = self._become.get_option("become_pass")
            self._program.write(password.encode() + b"\n")
            self._answered = True

    def _check(self) -> None:
        name, address = self._become.name, self._program.agent.address
        if self._answered and self._is(self._become.check_incorrect_password):
            raise AnsibleConnectionFailure(f"{address}: incorrect {name} password")
        if len(self._out) + len(self._err) > MOST_SAID:
            raise AnsibleConnectionFailure(f"{address}: {name} writes more than it should")
        if time.monotonic() > self._deadline:
            raise AnsibleConnectionFailure(f"{address}: timed out waiting for {name}")

    def _is(self, check: Any) -> bool:
        return bool(check(self._out) or check(self._err))
