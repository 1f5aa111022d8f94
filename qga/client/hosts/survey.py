"""Asks all guests of a host at the same time, each on its own thread.

A silent guest does not delay the others.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple, TypeVar

from qga.client.agent import GuestAgent
from qga.client.commands.info import VERSION
from qga.client.errors import (
    AgentError,
    AgentTimeout,
    CommandError,
    GuestFrozen,
    ProtocolError,
)
from qga.client.hosts.discovery import FoundGuest, libvirt_is_installed
from qga.client.results import NetworkInterface
from qga.client.threads import beside

T = TypeVar("T")

# Characters of a text, and number of addresses: a guest could send megabytes.
LONGEST_TEXT, MOST_ADDRESSES = 200, 50

ANSWERS, FROZEN, SILENT = "answers", "frozen", "silent"
HELD, UNREACHABLE = "held", "unreachable"


class Answer(NamedTuple):
    """What a guest has reported; None for what it did not report.

    state: `answers`; `frozen`: most commands are refused until it is thawed; `silent`: the agent
    does not answer; `held`: libvirt has the socket open and cannot be used; `unreachable`: see
    `error`. version: of the interface. qga: the release, if the agent is qga. os_id, os_version:
    those of os-release, such as debian and 12.
    """

    guest: FoundGuest
    state: str
    error: str = ""
    version: str | None = None
    qga: str | None = None
    os: str | None = None
    os_id: str | None = None
    os_version: str | None = None
    host_name: str | None = None
    addresses: tuple[str, ...] = ()


def survey(guests: Sequence[FoundGuest], timeout: float) -> list[Answer]:
    """Ask all at once, each for at most about `timeout` seconds."""
    asked = [beside(partial(ask, guest, timeout)) for guest in guests]
    return [answer.result() for answer in asked]


def ask(guest: FoundGuest, timeout: float) -> Answer:
    if guest.domain and guest.busy and not libvirt_is_installed():
        error = "libvirt has its socket open; install python3-libvirt to go through libvirt"
        return Answer(guest, HELD, error)
    deadline = time.monotonic() + timeout
    try:
        with GuestAgent(guest, timeout) as agent:
            return told(guest, agent, deadline)
    except AgentTimeout as error:
        return Answer(guest, SILENT, str(error))
    except AgentError as error:
        return Answer(guest, UNREACHABLE, str(error))


def told(guest: FoundGuest, agent: GuestAgent, deadline: float) -> Answer:
    state = ANSWERS

    def value(question: Callable[[], T]) -> T | None:
        nonlocal state
        agent.timeout = deadline - time.monotonic()
        try:
            return question()
        except GuestFrozen:
            state = FROZEN
            return None
        except (CommandError, ProtocolError):
            return None

    info, os = value(agent.info), value(agent.osinfo)
    # QEMU's agent, and an older qga, would log a request for a command that they do not have.
    release = value(agent.release) if info and info.offers(VERSION) else None
    name, interfaces = value(agent.hostname), value(agent.interfaces)
    return Answer(
        guest,
        state,
        version=cut(info and info.version),
        qga=cut(release and release.version),
        os=cut(os and (os.pretty_name or os.kernel_release)),
        os_id=cut(os and os.id),
        os_version=cut(os and os.version_id),
        host_name=cut(name),
        addresses=addresses(interfaces or []),
    )


def cut(text: str | None) -> str | None:
    return text and text[:LONGEST_TEXT]


def addresses(interfaces: Sequence[NetworkInterface]) -> tuple[str, ...]:
    """The addresses at which others can reach the guest."""
    found = (address.ip_address for link in interfaces for address in link.ip_addresses)
    return tuple(islice(filter(is_of_use, found), MOST_ADDRESSES))


def is_of_use(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (parsed.is_loopback or parsed.is_link_local)
