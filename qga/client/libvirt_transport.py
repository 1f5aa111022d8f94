"""The way to an agent by libvirt, which holds its guests' sockets itself.

libvirt pairs requests with replies, by their order: the ids of ours are still checked, for a
guest that was set back to an older state sends old replies again. Each call into it is made on a
thread of its own: they can be neither interrupted nor limited to less than a second, and one to
another machine may hang whatever was asked. One that takes too long is abandoned, and ends by
itself. An agent's error comes as an exception in libvirt's words, from which the agent's reply
is made again as well as can be: its class is lost.
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

# libvirt's own limits come in whole seconds: it is given the time to speak first.
GRACE = 1.0

# libvirt 9.0 stops in the middle of a request for which the agent's socket has no room at once
# (some 200 KB), and the agent then waits for the rest, be it this one or QEMU's own.
MAX_REQUEST = 128 * 1024

# libvirt 12.8 fails a reply with a string of more than 4 MiB. One of more than 10 MiB cuts every
# libvirt off from the agent until that is restarted. Two strings of this size pass both.
MAX_OUTPUT = 3 * 1024 * 1024

AGENT_ERROR = re.compile(r"unable to execute QEMU agent command '[^']*': (?P<desc>.*)", re.DOTALL)
# The words of agents for what QMP calls CommandNotFound.
NOT_FOUND = re.compile(r"command \S+ has (not been found|been disabled)", re.IGNORECASE)

MISSING = (
    "needs libvirt's Python module: apt install python3-libvirt (dnf: python3-libvirt), "
    "or pip install libvirt-python"
)

# What to try, by the name of libvirt's error.
ADVICE = {
    "VIR_ERR_NO_DOMAIN": "virsh list --all shows the domains that libvirt has",
    "VIR_ERR_OPERATION_INVALID": "virsh start DOMAIN, or virsh resume DOMAIN if it is paused",
    "VIR_ERR_ARGUMENT_UNSUPPORTED": "qgactl channel prints the channel that the domain needs",
    "VIR_ERR_AGENT_UNRESPONSIVE": NO_AGENT,
    "VIR_ERR_OPERATION_TIMEOUT": "another call to libvirt keeps this domain busy: try again",
    "VIR_ERR_AUTH_FAILED": "run this as root, or as a member of the group libvirt",
    "VIR_ERR_ACCESS_DENIED": "libvirt's access rules keep this user from the agent",
    "VIR_ERR_OPERATION_DENIED": "libvirt keeps this user from the agent",
    "VIR_ERR_SYSTEM_ERROR": "is libvirt there (systemctl start virtqemud.socket or libvirtd), "
    "and does virsh connect to this URI?",
    "VIR_ERR_NO_CONNECT": "virsh uri shows a URI that works",
    "VIR_ERR_NO_SUPPORT": "only domains of QEMU have its agent",
}


class Modules(NamedTuple):
    """libvirt's Python: the second has what only its QEMU driver offers."""

    libvirt: Any
    libvirt_qemu: Any


class LibvirtTransport:
    """A domain of one connection to libvirt."""

    max_request = MAX_REQUEST
    max_output = MAX_OUTPUT

    def __init__(self, address: str, modules: Modules, connection: Any, domain: Any) -> None:
        self._address = address
        self._domain = domain
        self._libvirt, self._qemu = modules
        self._connection = connection
        self._for_ever: int = self._qemu.VIR_DOMAIN_QEMU_AGENT_COMMAND_BLOCK
        self._in_step = self._tagging = False

    def synchronize(self, deadline: float) -> None:
        """Find out whether the agent echoes ids; libvirt itself is in step after a timeout."""
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
        self._in_step = False  # until the answer is here
        number = new_id() if self._tagging else None
        reply = self._pass(tagged(request, number), limit, deadline)
        if "return" in reply and self._tagging and reply.get("id") != number:
            raise ProtocolError("libvirt passed on the reply to another request")
        self._in_step = True
        return reply

    def _pass(self, request: bytes, limit: int, deadline: float) -> Reply:
        if len(request) > MAX_REQUEST:
            raise ProtocolError(
                f"a request of {counted(len(request), 'byte')} is too large, "
                f"by way of libvirt at most {MAX_REQUEST} reach the agent"
            )
        remaining = deadline - time.monotonic()
        patience = max(remaining, 1) + GRACE
        seconds = max(1, math.ceil(remaining)) if remaining < math.inf else self._for_ever
        arguments = (self._domain, request.decode(), seconds, 0)
        try:
            reply: str = in_time(lambda: self._qemu.qemuAgentCommand(*arguments), patience)
        except self._libvirt.libvirtError as error:
            return reply_of(self._libvirt, error, deadline)
        except UnicodeDecodeError as error:
            raise ProtocolError(f"no JSON in the reply: {reason_of(error)}") from None
        if len(reply) > limit:
            raise ProtocolError(f"the reply is larger than {counted(limit, 'byte')}")
        return parse_reply(reply.encode(errors="surrogatepass"))

    def order(self, request: bytes, limit: int, deadline: float) -> Reply | None:
        """libvirt waits for an answer all the same, and says when the guest has gone instead."""
        self.synchronize(deadline)
        try:
            return self.exchange(request, limit, deadline)
        except (TimeoutError, ConnectionError):
            return None

    def describe(self, deadline: float) -> tuple[int, str]:
        """The domain's state, a number of virDomainState, and its definition in XML."""

        def ask() -> tuple[int, str]:
            return self._domain.state()[0], self._domain.XMLDesc()

        try:
            return in_time(ask, deadline - time.monotonic())
        except self._libvirt.libvirtError as error:
            raise ConnectError(self._address, explained(self._libvirt, error)) from None

    def mistrust(self) -> None:
        self._in_step = False

    def close(self) -> None:
        try:
            self._connection.close()
        except self._libvirt.libvirtError:
            pass  # it was lost before


def open_libvirt(uri: str, domain: str, deadline: float) -> LibvirtTransport:
    """Connect to libvirt (at its default without a URI) and find the domain."""
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
    """ConnectError if libvirt's Python is not installed."""
    first = "libvirt" not in sys.modules
    try:
        import libvirt
        import libvirt_qemu
    except ModuleNotFoundError:
        raise ConnectError(address, MISSING) from None
    if first:  # nobody else here has said where its errors go; by itself it writes them to stderr
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
    """What `call` returns or raises; TimeoutError when it takes longer, and is left alone."""
    try:
        return beside(call).result(None if seconds == math.inf else max(seconds, 0))
    except futures.TimeoutError:
        raise TimeoutError("libvirt has not come back from the call") from None


def reply_of(libvirt: Any, error: Any, deadline: float) -> Reply:
    """The agent's error reply, if this is one; else TimeoutError or ConnectionError."""
    text = message_of(error)
    code = code_of(error)
    told = AGENT_ERROR.search(text)
    if told or code == getattr(libvirt, "VIR_ERR_AGENT_COMMAND_FAILED", None):
        desc = told["desc"] if told else text
        class_ = "CommandNotFound" if NOT_FOUND.search(desc) else "GenericError"
        return {"error": {"class": class_, "desc": desc}}
    if time.monotonic() >= deadline:
        raise TimeoutError(explained(libvirt, error))
    raise ConnectionError(explained(libvirt, error))


def explained(libvirt: Any, error: Any) -> str:
    """libvirt's words, and what to try."""
    code = code_of(error)
    tips = (tip for name, tip in ADVICE.items() if getattr(libvirt, name, None) == code)
    return ": ".join([message_of(error), *tips])


def message_of(error: Any) -> str:
    return error.get_error_message() or str(error)


def code_of(error: Any) -> int | None:
    code: int | None = error.get_error_code()
    return code
