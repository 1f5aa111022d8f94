"""Watches several guests at once; each is asked on its own thread.

What must stay true: a guest that does not answer does not delay the others, gets no second request
while the first one hangs, and does not keep the process from exiting.
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
from qga.client.texts import reason_of
from qga.client.threads import beside

# Twice the reply for a thousand disks and a thousand interfaces, which takes 3 MB of memory. The
# worst reply of this size takes 10 MB.
MAX_REPLY = 1024 * 1024
GRACE = 0.5  # seconds for a thread to report a timeout

# The paths of agent sockets that libvirt and Proxmox VE create.
_KNOWN_PATHS = (
    re.compile(r"/domain-\d+-(?P<name>[^/]+)/"),
    re.compile(r"/channel/\d+-(?P<name>[^/]+)/"),
    re.compile(r"/qemu-server/(?P<name>\d+)\.qga$"),
)


class Target(NamedTuple):
    """A guest to watch: the name to show, and the address of its agent."""

    name: str
    address: str | FoundGuest


class Sighting(NamedTuple):
    """The readings of a guest, or an error.

    at: time.monotonic() of the reply. seconds: how long it took. cause: the exception.
    """

    target: Target
    at: float
    seconds: float
    readings: Readings | None
    error: str = ""
    cause: AgentError | None = None


class Watcher:
    """Asks all guests that `find` returns, which may be different ones each time.

    timeout: seconds for each guest to reply.
    """

    def __init__(self, find: Callable[[], Sequence[Target]], timeout: float) -> None:
        self._find = find
        self._timeout = timeout
        self._lock = Lock()
        self._asked: dict[Target, Future[Sighting]] = {}

    def targets(self) -> list[Target]:
        """The guests that there are at this moment. None is asked."""
        return list(dict.fromkeys(self._find()))

    def look(
        self, patience: float | None = None, chosen: Callable[[Target], bool] | None = None
    ) -> list[Sighting]:
        """The state of each guest, in the order of `find`. Several threads may call this.

        patience: seconds after which to stop waiting. A later call may get the missing replies,
        unless they are older than the timeout.
        chosen: which of the guests to ask.
        """
        seconds = self._timeout + GRACE if patience is None else patience
        targets = self.targets()
        wanted = [target for target in targets if chosen is None or chosen(target)]
        with self._lock:
            asked = {target: self._ask(target) for target in wanted}
        done, _ = wait(asked.values(), None if seconds == math.inf else seconds)
        with self._lock:
            self._asked = {
                target: future
                for target, future in self._asked.items()
                if future not in done and target in targets
            }
        return [sighting_of(future, target, seconds) for target, future in asked.items()]

    def _ask(self, target: Target) -> Future[Sighting]:
        """The future of a request in progress or answered just now, or of a new one."""
        future = self._asked.get(target)
        if future is None or is_older(future, self._timeout):
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
        except Exception as failure:  # an unexpected error must not affect the other guests
            cause = fault(target, failure)
        now = time.monotonic()
        return Sighting(target, now, now - start, readings, text_of(cause, target), cause)


def is_older(future: Future[Sighting], seconds: float) -> bool:
    if not future.done():
        return False
    return bool(future.exception()) or time.monotonic() - future.result().at > seconds


def sighting_of(future: Future[Sighting], target: Target, seconds: float) -> Sighting:
    """The answer, or why there is none after `seconds`."""
    if not future.done():
        return late(target, seconds)
    failure = future.exception()
    if failure is None:
        return future.result()
    cause = fault(target, failure)  # there can be no more threads
    return Sighting(target, time.monotonic(), 0.0, None, text_of(cause, target), cause)


def fault(target: Target, failure: BaseException) -> AgentError:
    return AgentError(reason_of(failure), address=str(target.address))


def text_of(cause: AgentError | None, target: Target) -> str:
    """Callers print the name of the guest before it."""
    return str(cause).removeprefix(f"{target.name}: ") if cause else ""


def late(target: Target, seconds: float) -> Sighting:
    error = f"no answer within {seconds:g} s"
    cause = AgentTimeout(str(target.address), "", seconds, "no answer")
    return Sighting(target, time.monotonic(), seconds, None, error, cause)


def target(text: str) -> Target:
    """The guest at ADDRESS or NAME=ADDRESS. Raises ValueError if the address is not valid."""
    name, equals, address = text.partition("=")
    if not equals or ":" in name:
        name, address = "", text
    GuestAgent(address)
    return Target(name or name_of(address), address)


def name_of(address: str) -> str:
    """A name for the guest at an address: its own name if the address contains it."""
    scheme, _, place = address.partition(":")
    for pattern in _KNOWN_PATHS:
        found = pattern.search(place)
        if found:
            return found["name"]
    if scheme in ("libvirt", "proxmox"):
        return place.rpartition("/")[2]
    return place if scheme == "unix" else address
