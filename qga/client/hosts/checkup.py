"""Finds out, from the host, why the agent of a guest does not answer.

A checkup follows the path to the agent: the guest, its definition in libvirt, the socket, the state
of the VM according to QEMU, the agent, and what the agent reports. It ends at the first thing that
is broken, because nothing beyond it can be checked.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple
from xml.etree import ElementTree

from qga.client import addresses
from qga.client.agent import GuestAgent
from qga.client.commands.info import VERSION
from qga.client.errors import (
    AgentError,
    AgentTimeout,
    CommandError,
    ConnectError,
    GuestFrozen,
    ProtocolError,
)
from qga.client.hosts import discovery
from qga.client.hosts.processes import AGENT_PORT
from qga.client.hosts.qmp import run_state
from qga.client.hosts.trust import user_name
from qga.client.libvirt_transport import open_libvirt
from qga.client.sockets import PERMISSION, connected_paths, connections_to
from qga.client.transports import NO_AGENT
from qga.wording import counted

OK, WARNING, FAILED = "ok", "warning", "failed"

PINGS = 5
# Seconds. A round trip takes milliseconds, even on a busy host.
SLOW_ANSWER, WRONG_CLOCK = 1.0, 2.0

# Characters: a hostile guest may report any number of commands.
LONGEST_LIST = 2000

# Seconds for QEMU to report the state of the VM. It replies at once, unless another client is
# connected to its monitor.
MONITOR_PATIENCE = 2.0

# An agent that has the port open may be stuck, or libvirt may have given up on it.
RESTART = "restart the agent in the guest (systemctl restart qemu-guest-agent)"

# The values of virDomainState in which no agent answers, and how to leave them.
DOMAIN_STATES = {
    3: ("the VM is paused", "virsh resume DOMAIN"),
    5: ("it is not running", "virsh start DOMAIN"),
    6: ("it has crashed", "virsh start DOMAIN"),
    7: ("it sleeps", "virsh dompmwakeup DOMAIN"),
}


# The values of QMP's RunState in which no agent answers.
RUN_STATES = {
    "paused": "the VM is paused",
    "prelaunch": "the VM is paused: it was started with -S",
    "io-error": "the VM is paused after an I/O error of a disk (is one of this host full?)",
    "suspended": "the VM is suspended",
    "inmigrate": "the VM is waiting for a migration to this host",
    "postmigrate": "the VM has been migrated to another host",
    "shutdown": "the guest has shut down",
    "guest-panicked": "the guest's kernel has crashed",
}
RESUME = {
    "suspended": "system_wakeup",
    "shutdown": "system_reset",
    "guest-panicked": "system_reset",
}


# Where to find out, in the guest, which setting disables commands.
WHERE_OURS = "qemu-ga --doctor in the guest shows which line disables them"
WHERE_QEMUS = "look at block-rpcs and allow-rpcs in the guest's qemu-ga.conf (qemu-ga --dump-conf)"


class Check(NamedTuple):
    """The result of one check. `advice` is what to try if it is not ok."""

    subject: str
    state: str
    detail: str
    advice: str = ""


class Broken(Exception):
    """A check failed, and the rest cannot succeed."""

    def __init__(self, subject: str, detail: str, advice: str = "") -> None:
        super().__init__(detail)
        self.check = Check(subject, FAILED, detail, advice)


class Route(NamedTuple):
    """How to reach an agent: through a socket of this host, through libvirt, or both.

    guest: the guest that was found, if the address is a name.
    """

    address: str
    socket: str = ""
    domain: str = ""
    guest: discovery.FoundGuest | None = None


def checkup(address: str, timeout: float) -> Iterator[Check]:
    """Yield each check when it is done. Raises ValueError if the address is not valid."""
    addresses.transport_opener(address, 0)
    return until_broken(checks(address, timeout))


def until_broken(made: Iterator[Check]) -> Iterator[Check]:
    try:
        yield from made
    except Broken as end:
        yield end.check


def checks(address: str, timeout: float) -> Iterator[Check]:
    if addresses.is_name(address):
        check, route = found(address)
        yield check
    else:
        route = route_of(address)
    opened = False
    by_libvirt = route.address.startswith("libvirt:")
    if by_libvirt or (route.domain and discovery.libvirt_is_installed()):
        try:
            opened = yield from domain_checks(route.domain, timeout)
        except Broken as broken:
            if by_libvirt or broken.check.subject != "libvirt":
                raise
            yield broken.check._replace(state=WARNING)  # the socket can still be used
    if route.socket:
        yield from socket_checks(route.socket, by_libvirt)
        yield from machine_checks(route.socket, min(timeout, MONITOR_PATIENCE))
    yield from agent_checks(route.guest or route.address, timeout, RESTART if opened else "")


def found(name: str) -> tuple[Check, Route]:
    """The guest of this name. If none is found, it may be a domain without a channel."""
    try:
        guest = addresses.resolve(name)
    except ConnectError as error:
        if not discovery.libvirt_is_installed():
            raise Broken("guest", str(error), "is it running?") from None
        domain = f"libvirt:{name}"
        check = Check(
            "guest", WARNING, str(error), f"is it running? If libvirt manages it, try {domain}"
        )
        return check, Route(domain, domain=domain)
    scheme = guest.address.partition(":")[0]
    socket = "" if scheme == discovery.HYBRID else guest.socket  # which serves many clients
    route = Route(guest.address, socket, guest.domain, guest)
    return Check("guest", OK, f"{guest.name} runs here, by {guest.manager}"), route


def route_of(address: str) -> Route:
    scheme, _, place = address.partition(":")
    if scheme == "libvirt":
        return Route(address, domain=address)
    if scheme == "proxmox":
        return Route(address, discovery.proxmox_socket(place))
    return Route(address, place if scheme == "unix" else "")


def domain_checks(address: str, timeout: float) -> Generator[Check, None, bool]:
    """Check what libvirt reports about the domain.

    Returns whether a program in the guest has the port open.
    """
    deadline = time.monotonic() + timeout
    with needed("libvirt"):
        uri, domain = addresses.uri_and_domain(address.partition(":")[2])
        with closing(open_libvirt(uri, domain, deadline)) as link:
            number, xml = link.describe(deadline)
    yield Check("libvirt", OK, "it knows the domain")
    if number in DOMAIN_STATES:
        raise Broken("domain", *DOMAIN_STATES[number])
    yield Check("domain", OK, "it is running")
    state = channel_state(xml)
    if state is None:
        advice = "qgactl channel --format xml prints what to add by virsh edit DOMAIN"
        raise Broken("channel", f"the domain has no channel {AGENT_PORT}", advice)
    yield Check("channel", OK, f"the domain has the channel {AGENT_PORT}")
    if state == "disconnected":
        raise Broken("port", "no program in the guest has opened it", NO_AGENT)
    yield Check("port", OK, "a program in the guest has opened it")
    return state == "connected"


def channel_state(xml: str) -> str | None:
    """The state of the agent's channel in the definition of a domain.

    `connected` or `disconnected`; "" if libvirt does not report it; None without such a channel.
    """
    definition = ElementTree.fromstring(xml)  # noqa: S314 - libvirt has written it
    for target in definition.iterfind("devices/channel/target"):
        if target.get("name") == AGENT_PORT:
            return target.get("state", "")
    return None


def socket_checks(path: str, by_libvirt: bool) -> Iterator[Check]:
    """Check the socket without connecting to it."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        advice = "is the guest running? qgactl list shows those that run here"
        raise Broken("socket", f"{path} does not exist", advice) from None
    except OSError as error:
        raise Broken("socket", f"{path}: {error.strerror}", PERMISSION) from None
    if not stat.S_ISSOCK(status.st_mode):
        raise Broken("socket", f"{path} is not a socket", "qgactl list shows the guests' sockets")
    yield Check("socket", OK, f"found {path}")
    clients = connections_to(path, connected_paths())
    if by_libvirt:
        yield Check("connection", OK, "libvirt has the socket open; checking through libvirt")
        return
    if not os.access(path, os.W_OK):
        owner, mode = user_name(status.st_uid), stat.S_IMODE(status.st_mode)
        detail = f"the socket belongs to {owner} and has mode {mode:o}"
        raise Broken("permission", detail, PERMISSION)
    yield Check("permission", OK, "this user may connect")
    if clients:
        domain = discovery.libvirt_domain_of(path)
        advice = f"use {domain}" if domain else "end that program if the agent does not answer"
        yield Check("connection", WARNING, "another program is connected to the socket", advice)


def machine_checks(path: str, seconds: float) -> Iterator[Check]:
    """Check the state of the VM that has this socket, if QEMU has a monitor socket."""
    monitor = discovery.monitor_of(path)
    if monitor is None:
        return
    state = run_state(monitor.path, seconds, monitor.check)
    if state in RUN_STATES:
        advice = f"send {RESUME.get(state, 'cont')} to QEMU's monitor, {monitor.path}"
        raise Broken("machine", RUN_STATES[state], advice)
    if state:
        yield Check("machine", OK, f"QEMU reports: {state}")


def agent_checks(
    address: str | discovery.FoundGuest, timeout: float, advice: str
) -> Iterator[Check]:
    """Check whether the agent answers, and what. `advice` is given if it does not."""
    with closing(GuestAgent(address, timeout)) as agent:
        with needed("answer", advice):
            agent.sync()
        yield Check("answer", OK, "the agent answers")
        for subject, question in QUESTIONS.items():
            with needed(subject):
                yield answer_to(subject, question, agent)


@contextmanager
def needed(subject: str, advice: str = "") -> Iterator[None]:
    """End the checkup on an error in the block. `advice` replaces that of an agent's silence."""
    try:
        yield
    except (AgentError, TimeoutError) as error:
        text = str(error)
        if not advice or not (NO_AGENT in text or isinstance(error, AgentTimeout)):
            raise Broken(subject, text) from None
        raise Broken(subject, text.replace(f": {NO_AGENT}", ""), advice) from None


def answer_to(subject: str, question: Callable[[GuestAgent], Check], agent: GuestAgent) -> Check:
    try:
        return question(agent)
    except GuestFrozen:
        return Check(subject, WARNING, "cannot be checked while filesystems are frozen")
    except (CommandError, ProtocolError) as error:
        return Check(subject, WARNING, f"cannot be checked: {error}")


def round_trip(agent: GuestAgent) -> Check:
    times = [agent.ping() for _ in range(PINGS)]
    detail = (
        f"{sum(times) / PINGS * 1000:.1f} ms, the longest of {PINGS} {max(times) * 1000:.1f} ms"
    )
    if max(times) < SLOW_ANSWER:
        return Check("round trip", OK, detail)
    return Check("round trip", WARNING, detail, "is the guest or this host overloaded?")


def version(agent: GuestAgent) -> Check:
    info = agent.info()
    release = agent.release() if info.offers(VERSION) else None
    ours = f", qga {release.version} with Python {release.python}" if release else ""
    return Check("version", OK, f"{info.version}{ours}")


def commands(agent: GuestAgent) -> Check:
    every = agent.info().commands
    off = sorted(command.name for command in every if not command.enabled)
    if not off:
        return Check("commands", OK, f"all {len(every)} are enabled")
    detail = counted(len(off), f"of {len(every)} is off", f"of {len(every)} are off")
    if agent.freeze_status() == "frozen":
        return Check("commands", WARNING, f"{detail} while filesystems are frozen")
    ours = any(command.name.startswith("qga-") for command in every)
    where = WHERE_OURS if ours else WHERE_QEMUS
    return Check(
        "commands",
        WARNING,
        f"{detail}: {', '.join(off)[:LONGEST_LIST]}",
        f"if that is not wanted: {where}",
    )


def filesystems(agent: GuestAgent) -> Check:
    status = agent.freeze_status()
    if status == "thawed":
        return Check("filesystems", OK, "not frozen")
    advice = "if no snapshot is being taken: qgactl thaw"
    return Check("filesystems", WARNING, status, advice)


def clock(agent: GuestAgent) -> Check:
    before = time.time()
    there = agent.time() / 1e9
    ahead = there - (before + time.time()) / 2
    detail = f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this host's"
    if abs(ahead) < WRONG_CLOCK:
        return Check("clock", OK, detail)
    return Check("clock", WARNING, detail, "qgactl time --set sets it; run NTP in the guest")


# Frozen filesystems explain later warnings, so they come first.
QUESTIONS: dict[str, Callable[[GuestAgent], Check]] = {
    "filesystems": filesystems,
    "round trip": round_trip,
    "version": version,
    "commands": commands,
    "clock": clock,
}
