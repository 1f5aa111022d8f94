"""Several guests watched at once: each is asked in a thread of its own.

What must stay true: a guest that does not answer delays no other one, is asked no second time
while the first question hangs, and keeps no process from ending.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from threading import Lock
from typing import NamedTuple

from qga.client.agent import GuestAgent
from qga.client.errors import AgentError, AgentTimeout
from qga.client.hosts.discovery import FoundGuest
from qga.client.monitoring.metrics import Readings, read_metrics
from qga.client.threads import beside

MAX_REPLY = 1024 * 1024  # of a thousand disks and a thousand interfaces; takes 30 MB to read
GRACE = 0.5  # seconds for a thread to report a timeout

# The paths that libvirt and Proxmox VE give an agent's socket.
_KNOWN_PATHS = (
    re.compile(r"/domain-\d+-(?P<name>[^/]+)/"),
    re.compile(r"/channel/\d+-(?P<name>[^/]+)/"),
    re.compile(r"/qemu-server/(?P<name>\d+)\.qga$"),
)


class Target(NamedTuple):
    """A guest to watch: what it is to be called, and where its agent is."""

    name: str
    address: str | FoundGuest


class Sighting(NamedTuple):
    """What was seen of a guest: `readings`, or the error.

    at: when, by time.monotonic(). seconds: how long it took. cause: of the error.
    """

    target: Target
    at: float
    seconds: float
    readings: Readings | None
    error: str = ""
    cause: AgentError | None = None


class Watcher:
    """Asks all guests that `find` names, which may be others each time.

    timeout: seconds that a guest has for its answer.
    """

    def __init__(self, find: Callable[[], Sequence[Target]], timeout: float) -> None:
        self._find = find
        self._timeout = timeout
        self._lock = Lock()
        self._asked: dict[Target, Future[Sighting]] = {}

    def look(self, patience: float | None = None) -> list[Sighting]:
        """What each guest says, in the order of `find`; may be called by several threads.

        patience: seconds after which not to wait for the rest: the next look may find its answer.
        """
        seconds = self._timeout + GRACE if patience is None else patience
        targets = list(dict.fromkeys(self._find()))
        with self._lock:
            asked = {target: self._ask(target) for target in targets}
        done, _ = wait(asked.values(), None if seconds == math.inf else seconds)
        with self._lock:
            self._asked = {
                target: future
                for target, future in self._asked.items()
                if future not in done and target in asked
            }
        return [
            future.result() if future in done else late(target, seconds)
            for target, future in asked.items()
        ]

    def _ask(self, target: Target) -> Future[Sighting]:
        """The answer to come of a question that is under way, or of a new one."""
        future = self._asked.get(target)
        if future is None:
            future = self._asked[target] = beside(partial(self._answer, target))
        return future

    def _answer(self, target: Target) -> Sighting:
        start = time.monotonic()
        readings, cause = None, None
        try:
            with GuestAgent(target.address, self._timeout, max_reply=MAX_REPLY) as agent:
                readings = read_metrics(agent, self._timeout)
        except AgentError as failure:
            cause = failure
        except Exception as failure:  # a fault in reaching one guest must not affect the others
            cause = AgentError(f"{type(failure).__name__}: {failure}", address=str(target.address))
        now = time.monotonic()
        # The guest's name is said before it anyway.
        error = str(cause).removeprefix(f"{target.name}: ") if cause else ""
        return Sighting(target, now, now - start, readings, error, cause)


def late(target: Target, seconds: float) -> Sighting:
    error = f"no answer within {seconds:g} s"
    cause = AgentTimeout(str(target.address), "", seconds, "no answer")
    return Sighting(target, time.monotonic(), seconds, None, error, cause)


def target(text: str) -> Target:
    """The guest at an ADDRESS, or NAME=ADDRESS. Raises ValueError if it is not a valid address."""
    name, equals, address = text.partition("=")
    if not equals or ":" in name:
        name, address = "", text
    GuestAgent(address)
    return Target(name or name_of(address), address)


def name_of(address: str) -> str:
    """What a guest may be called by its address: its name where that is part of it."""
    scheme, _, place = address.partition(":")
    for pattern in _KNOWN_PATHS:
        found = pattern.search(place)
        if found:
            return found["name"]
    if scheme in ("libvirt", "proxmox"):
        return place.rpartition("/")[2]
    return place if scheme == "unix" else address
