"""Reaches an agent through libvirt, which keeps the sockets of its guests open.

libvirt matches replies with requests by their order. Ids are checked as well, because a guest that
was reverted to a snapshot may send an old reply again. Each call into libvirt is made on its own
thread: calls can be neither interrupted nor limited to less than a second, and a call to another
machine may hang regardless of its timeout. A call that takes too long is abandoned. libvirt raises
an agent's error as an exception with a text of its own, from which the reply is reconstructed as
far as possible; the error class is lost.
"""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any, NamedTuple, TypeVar

from qga.client.errors import ConnectError, ProtocolError
from qga.client.threads import beside
from qga.client.transports import NO_AGENT
from qga.client.waits import wait_until
from qga.client.wire import (
    ID_REFUSED,
    USUAL_REPLY,
    Reply,
    encode_request,
    new_id,
    outcome,
    parse_reply,
    reason_of,
    tagged,
)
from qga.wording import counted

T = TypeVar("T")

# libvirt counts its timeout in whole seconds. Its own error comes first if it gets one more.
GRACE = 1.0

# libvirt 9.0 stops in the middle of a request that does not fit into the buffer of the agent's
# socket (some 200 KB), and any agent then waits for the rest.
MAX_REQUEST = 128 * 1024

# libvirt 12.8 rejects a reply with a string of more than 4 MiB. After a reply of more than 10 MiB,
# any libvirt loses the agent until it is restarted. Two strings of this size stay below both.
MAX_OUTPUT = 3 * 1024 * 1024

AGENT_ERROR = re.compile(r"unable to execute QEMU agent command '[^']*': (?P<desc>.*)", re.DOTALL)
# The texts for which QEMU's agent uses the class CommandNotFound.
NOT_FOUND = re.compile(r"command \S+ has (not been found|been disabled)", re.IGNORECASE)

MISSING = (
    "needs the Python module of libvirt: apt install python3-libvirt (or dnf), "
    "or pip install libvirt-python"
)

# What to try, by the name of the error in libvirt.
ADVICE = {
    "VIR_ERR_NO_DOMAIN": "virsh list --all shows all domains",
    "VIR_ERR_OPERATION_INVALID": "virsh start DOMAIN, or virsh resume DOMAIN if it is paused",
    "VIR_ERR_ARGUMENT_UNSUPPORTED": "qgactl channel prints the channel to add to the domain",
    "VIR_ERR_AGENT_UNRESPONSIVE": NO_AGENT,
    "VIR_ERR_OPERATION_TIMEOUT": "another call to libvirt keeps this domain busy; try again",
    "VIR_ERR_AUTH_FAILED": "run this as root, or as a member of the group libvirt",
    "VIR_ERR_ACCESS_DENIED": "libvirt's access rules deny this user the agent",
    "VIR_ERR_OPERATION_DENIED": "libvirt denies this user the agent",
    "VIR_ERR_SYSTEM_ERROR": "is libvirt running (systemctl start virtqemud.socket or libvirtd), "
    "and does virsh connect to this URI?",
    "VIR_ERR_NO_CONNECT": "virsh uri shows a URI that works",
    "VIR_ERR_NO_SUPPORT": "only QEMU domains have a guest agent",
}


class Modules(NamedTuple):
    """The Python modules of libvirt. The second one has the functions of the QEMU driver."""

    libvirt: Any
    libvirt_qemu: Any


class LibvirtTransport:
    """The agent of one domain, through one connection to libvirt."""

    max_request = MAX_REQUEST
    max_output = MAX_OUTPUT
    queue = None
    max_under_way = 1  # libvirt lets nobody else ask a domain's agent meanwhile

    def __init__(self, address: str, modules: Modules, connection: Any, domain: Any) -> None:
        self._address = address
        self.domain = domain
        self.libvirt, self._qemu = modules
        self._connection = connection
        self._for_ever: int = self._qemu.VIR_DOMAIN_QEMU_AGENT_COMMAND_BLOCK
        self._in_step = self._tagging = False
        self._replies: dict[int, Reply] = {}

    def synchronize(self, deadline: float) -> None:
        """Find out whether the agent echoes ids. libvirt itself skips replies that come late."""
        number = new_id()
        request = encode_request("guest-sync", {"id": number})
        reply = self._pass(tagged(request, number), USUAL_REPLY, deadline)
        if ID_REFUSED.decode() in str(reply.get("error")):
            reply = self._pass(request, USUAL_REPLY, deadline)
        if outcome(reply, "guest-sync") != number:
            raise ProtocolError("guest-sync is answered with another number")
        self._tagging = reply.get("id") == number
        self._in_step = True

    def exchange(self, request: bytes, limit: int, deadline: float) -> Reply:
        if not self._in_step:
            self.synchronize(deadline)
        self._in_step = False  # until the reply has arrived
        number = new_id() if self._tagging else None
        reply = self._pass(tagged(request, number), limit, deadline)
        if "return" in reply and self._tagging and reply.get("id") != number:
            raise ProtocolError("libvirt passed on the reply to another request")
        self._in_step = True
        return reply

    def submit(self, request: bytes, limit: int, deadline: float) -> int:
        ticket = new_id()
        self._replies[ticket] = self.exchange(request, limit, deadline)
        return ticket

    def collect(self, ticket: int, deadline: float) -> Reply:
        return self._replies.pop(ticket)

    def discard(self, ticket: int) -> None:
        self._replies.pop(ticket, None)

    def _pass(self, request: bytes, limit: int, deadline: float) -> Reply:
        if len(request) > MAX_REQUEST:
            raise ProtocolError(
                f"a request of {counted(len(request), 'byte')} is too large: "
                f"libvirt passes at most {MAX_REQUEST} to the agent"
            )
        remaining = deadline - time.monotonic()
        patience = max(remaining, 1) + GRACE
        seconds = max(1, math.ceil(remaining)) if remaining < math.inf else self._for_ever
        arguments = (self.domain, request.decode(), seconds, 0)
        try:
            reply: str = in_time(lambda: self._qemu.qemuAgentCommand(*arguments), patience)
        except self.libvirt.libvirtError as error:
            return reply_of(self.libvirt, error, deadline)
        except UnicodeDecodeError as error:
            raise ProtocolError(f"no JSON in the reply: {reason_of(error)}") from None
        if len(reply) > limit:
            raise ProtocolError(f"the reply is larger than {counted(limit, 'byte')}")
        return parse_reply(reply.encode(errors="surrogatepass"))

    def order(self, request: bytes, limit: int, deadline: float) -> Reply | None:
        """libvirt waits for a reply here as well, and fails when the guest has gone."""
        self.synchronize(deadline)
        try:
            return self.exchange(request, limit, deadline)
        except (TimeoutError, ConnectionError):
            return None

    def describe(self, deadline: float) -> tuple[int, str]:
        """The state of the domain (a virDomainState), and its definition in XML."""

        def ask() -> tuple[int, str]:
            return self.domain.state()[0], self.domain.XMLDesc()

        try:
            return in_time(ask, deadline - time.monotonic())
        except self.libvirt.libvirtError as error:
            raise ConnectError(self._address, explained(self.libvirt, error)) from None

    def mistrust(self) -> None:
        self._in_step = False

    def is_served(self) -> bool:
        return True

    def close(self) -> None:
        try:
            self._connection.close()
        except self.libvirt.libvirtError:
            pass  # the connection was lost earlier


def open_libvirt(uri: str, domain: str, deadline: float) -> LibvirtTransport:
    """Connect to libvirt (at the default URI if `uri` is empty) and find the domain."""
    address = f"libvirt:{uri}/{domain}" if uri else f"libvirt:{domain}"
    modules = import_libvirt(address)
    libvirt = modules.libvirt

    def connect() -> LibvirtTransport:
        connection = libvirt.open(uri or None)
        found = find_domain(libvirt, connection, domain)
        return LibvirtTransport(address, modules, connection, found)

    try:
        return in_time(connect, deadline - time.monotonic())
    except libvirt.libvirtError as error:
        raise ConnectError(address, explained(libvirt, error)) from None


def import_libvirt(address: str) -> Modules:
    """Raises ConnectError if the modules are not installed."""
    first = "libvirt" not in sys.modules
    try:
        import libvirt
        import libvirt_qemu
    except ModuleNotFoundError:
        raise ConnectError(address, MISSING) from None
    if first:  # libvirt prints errors to stderr by default; a handler of the program stays
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
    return Modules(libvirt, libvirt_qemu)


def find_domain(libvirt: Any, connection: Any, name: str) -> Any:
    """By its name or UUID."""
    try:
        return connection.lookupByName(name)
    except libvirt.libvirtError as error:
        try:
            return connection.lookupByUUIDString(name)
        except libvirt.libvirtError:
            raise error from None


def in_time(call: Callable[[], T], seconds: float) -> T:
    """Return or raise what `call` does. After `seconds` abandon it and raise TimeoutError."""
    return outcome_of(beside(call), seconds)


def outcome_of(call: futures.Future[T], seconds: float) -> T:
    """The same for a call that has started."""
    if not has_returned(call, seconds):
        raise TimeoutError("libvirt has not returned from the call")
    return call.result()


def has_returned(call: futures.Future[Any], seconds: float) -> bool:
    """Wait until it has, for at most `seconds`."""
    return wait_until(lambda patience: bool(futures.wait([call], patience).done), seconds)


def reply_of(libvirt: Any, error: Any, deadline: float) -> Reply:
    """The agent's error reply if this is one. Raises TimeoutError or ConnectionError otherwise."""
    text = message_of(error)
    told = AGENT_ERROR.search(text)
    if told or is_a(libvirt, error, "VIR_ERR_AGENT_COMMAND_FAILED"):
        desc = told["desc"] if told else text
        class_ = "CommandNotFound" if NOT_FOUND.search(desc) else "GenericError"
        return {"error": {"class": class_, "desc": desc}}
    if time.monotonic() >= deadline or is_a(libvirt, error, "VIR_ERR_AGENT_COMMAND_TIMEOUT"):
        raise TimeoutError(explained(libvirt, error))
    raise ConnectionError(explained(libvirt, error))


def explained(libvirt: Any, error: Any) -> str:
    """libvirt's message, and what to try."""
    tips = (tip for name, tip in ADVICE.items() if is_a(libvirt, error, name))
    return ": ".join([message_of(error), *tips])


def message_of(error: Any) -> str:
    return error.get_error_message() or str(error)


def is_a(libvirt: Any, error: Any, name: str) -> bool:
    """Whether an error has the code of this name, which an older libvirt may not have."""
    code = error.get_error_code()
    return code is not None and code == getattr(libvirt, name, None)
