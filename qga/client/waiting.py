"""Waiting until a guest fulfils conditions.

The guest is checked repeatedly, less often as time goes by, with commands of any agent if it does
not run qga. The agent, QEMU and its socket may not exist yet: that counts as not ready. A condition
that can never be met ends the wait at once (NeverReady).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from qga.client.commands.readiness import READINESS_PATIENCE
from qga.client.conditions import CHECKS, Never, Seen
from qga.client.errors import AgentError, CommandNotFound, GuestFrozen, NeverReady, NotReady
from qga.client.readiness import Readiness
from qga.client.texts import number_in
from qga.client.waits import pause

if TYPE_CHECKING:
    from qga.client.agent import GuestAgent

Report = Callable[[str, str], object]
"""Called with a condition that is not met, and the reason."""

# Pauses between two checks, in seconds: the first, the longest, and the growth.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
PAUSE_GROWTH = 1.5

# Seconds for the last check even after the timeout: it determines what is missing.
LAST_PATIENCE = 5.0

# The characters of names in systemd.unit(5), but no leading hyphen, which begins an option, except
# before a dot: -.mount is that of the root directory.
UNIT = re.compile(r"(?:-(?=\.))?[A-Za-z0-9:_.@\\][A-Za-z0-9:_.@\\-]*")

# Of Linux or of Windows.
ABSOLUTE = re.compile(r"/|[A-Za-z]:[\\/]")

LARGEST_TCP_PORT = 2**16 - 1
TCP_PORTS = range(1, LARGEST_TCP_PORT + 1)

KINDS = ("agent", "boot", "cloud-init", "address", "unit:NAME", "port:NUMBER", "file:PATH")
_OF_READINESS = ("boot", "cloud-init", "address", "unit", "port")


class Met(NamedTuple):
    """A condition that is met: after how many seconds, and its state."""

    condition: str
    seconds: float
    detail: str


class Condition(NamedTuple):
    """A condition. text: as it was given, such as `unit:ssh.service`."""

    text: str
    kind: str
    argument: str


def parse(text: str) -> Condition:
    """Parse a condition. Raises ValueError with the list of conditions."""
    kind, colon, argument = text.partition(":")
    wanted = next((each for each in KINDS if each.partition(":")[0] == kind), "")
    expected = ""
    if not wanted or bool(argument) != (":" in wanted) or (colon and not argument):
        expected = wanted or ", ".join(KINDS)
    elif kind == "port" and number_in(TCP_PORTS, argument) is None:
        expected = f"port:NUMBER, a number from 1 to {LARGEST_TCP_PORT}"
    elif kind == "unit" and not UNIT.fullmatch(argument):
        expected = "the name of a unit, such as unit:ssh.service"
    elif kind == "file" and not ABSOLUTE.match(argument):
        expected = "an absolute path, such as file:/run/nologin"
    if expected:
        raise ValueError(f"'{text}' is not a condition, expected: {expected}")
    return Condition(text, kind, argument)


def wait_for(
    agent: GuestAgent, conditions: Sequence[str], timeout: float, report: Report
) -> list[Met]:
    """As GuestAgent.wait_for."""
    wanted = list(dict.fromkeys(map(parse, conditions)))
    start = time.monotonic()
    met: dict[Condition, Met] = {}
    missing: dict[Condition, str] = {}
    delay = FIRST_PAUSE
    while True:
        left = timeout - (time.monotonic() - start)
        pending = [each for each in wanted if each not in met]
        for condition, seen in _look(agent, pending, max(left, LAST_PATIENCE)):
            if seen.met:
                after = round(time.monotonic() - start, 3)
                met[condition] = Met(condition.text, after, seen.detail)
                missing.pop(condition, None)
            elif missing.get(condition) != seen.detail:
                missing[condition] = seen.detail
                report(condition.text, seen.detail)
        if len(met) == len(wanted):
            return [met[condition] for condition in wanted]
        left = timeout - (time.monotonic() - start)
        if left <= 0:
            reasons = {condition.text: reason for condition, reason in missing.items()}
            raise NotReady(agent.address, timeout, reasons, list(met.values()))
        agent.close()  # QEMU serves one client at a time, and others may want to connect
        pause(min(delay, left))
        delay = min(delay * PAUSE_GROWTH, LONGEST_PAUSE)


def _look(
    agent: GuestAgent, wanted: list[Condition], patience: float
) -> Iterator[tuple[Condition, Seen]]:
    """The current state of each condition."""
    try:
        agent.sync(timeout=min(agent.timeout, patience))
        state = _readiness(agent, wanted, patience)
    except AgentError as error:
        for condition in wanted:
            yield condition, Seen(False, error.reason)
        return
    for condition in wanted:
        yield condition, _seen(agent, condition, state)


def _seen(agent: GuestAgent, condition: Condition, state: Readiness | None) -> Seen:
    try:
        return CHECKS[condition.kind](agent, condition.argument, state)
    except Never as error:
        raise NeverReady(agent.address, condition.text, str(error)) from None
    except GuestFrozen as error:
        return Seen(False, error.reason)
    except CommandNotFound as error:
        reason = f"this agent cannot tell: {error.command}: {error.reason}"
        raise NeverReady(agent.address, condition.text, reason) from None
    except AgentError as error:
        return Seen(False, error.reason)


def _readiness(agent: GuestAgent, wanted: list[Condition], patience: float) -> Readiness | None:
    """The reply of qga-get-readiness; None if the agent lacks it or refuses it."""
    if not any(condition.kind in _OF_READINESS for condition in wanted):
        return None
    units = [condition.argument for condition in wanted if condition.kind == "unit"]
    ports = [int(condition.argument) for condition in wanted if condition.kind == "port"]
    try:
        return agent.readiness(units, ports, timeout=min(READINESS_PATIENCE, patience))
    except GuestFrozen:
        raise
    except CommandNotFound:
        return None
