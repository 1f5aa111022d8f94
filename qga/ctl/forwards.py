"""What `qgactl forward` listens on, and where that leads: the words as ssh -L takes them."""

from __future__ import annotations

import os
import re
import socket
import stat
from contextlib import suppress
from typing import NamedTuple, Optional

from qga.client.addresses import FORMS
from qga.client.texts import number_in
from qga.client.tunnels import Target

LOOPBACK = "127.0.0.1"
HIGHEST_PORT = 65535
BACKLOG = 128

FORM = "use 8080:127.0.0.1:80, 127.0.0.1:8080:80, 8080:/run/web.sock or /tmp/web.sock:127.0.0.1:80"

BRACKETS = "write an IPv6 address in brackets, as in [::1]:8080:80 or 8080:[::1]:80"

SERVICE = "use 22, 127.0.0.1:22 or /run/docker.sock"

PATH = re.compile(r"(?:unix:)?(\.{0,2}/.*)", re.DOTALL)
PART = re.compile(r"\[([^\[\]]+)\]|(?:unix:(?=\.{0,2}/))?([^:\[\]]+)")


class Listen(NamedTuple):
    """Address and port of this host, or the path of a socket to create."""

    host: str = LOOPBACK
    port: int = 0
    path: Optional[str] = None


class Forward(NamedTuple):
    listen: Listen
    target: Target


def parse_forward(text: str) -> Forward:
    """Parse [ADDR:]PORT or PATH, then [HOST:]PORT or PATH. Raises ValueError."""
    parts = split(text)
    if not 2 <= len(parts) <= 4:
        form = BRACKETS if "::" in text else FORM
        raise ValueError(f"'{text}' is not a forward; {form}")
    tail = parts[-1]
    if len(parts) == 2:
        return Forward(local(parts[:1]), Target(path=tail) if is_path(tail) else near(tail))
    if len(parts) == 3 and is_path(tail):
        return Forward(local(parts[:2]), Target(path=tail))
    if len(parts) == 3 and not (parts[0].isdecimal() or is_path(parts[0])):
        return Forward(local(parts[:2]), near(tail))
    return Forward(local(parts[:-2]), Target(parts[-2], number(tail)))


def parse_target(text: str) -> Target:
    """Parse PORT, HOST:PORT or PATH. Raises ValueError."""
    path = PATH.fullmatch(text)
    if path is not None:
        return Target(path=path[1])
    parts = split(text)
    if len(parts) == 1:
        return near(parts[0])
    if len(parts) == 2 and not any(map(is_path, parts)):
        return Target(parts[0], number(parts[1]))
    form = "write an IPv6 address in brackets, as in [::1]:22" if "::" in text else SERVICE
    raise ValueError(f"'{text}' is not a service; {form}")


def is_forward(text: str) -> bool:
    """Whether it is a forward, and not the address of a guest, such as vsock:3:1234."""
    scheme = text.partition(":")[0]
    if scheme in FORMS and scheme != "unix":
        return False
    try:
        return bool(parse_forward(text))
    except ValueError:
        return False


def may_be_forward(text: str) -> bool:
    """Whether it is one, perhaps with a mistake in it, since it is nothing else."""
    scheme, colon, _ = text.partition(":")
    return is_forward(text) or bool(colon and scheme not in FORMS and "/" not in text)


def open_listener(listen: Listen) -> socket.socket:
    """A listening socket; a unix socket is accessible only to this user.

    Raises OSError, and UnicodeError for a host whose name cannot be encoded.
    """
    if listen.path is None:
        family, _, _, _, place = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(place, family=family, backlog=BACKLOG)
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        remove_leftover(listen.path)
        listener.bind(listen.path)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def remove_leftover(path: str) -> None:
    """Unlink a socket of this user that nobody listens on: a qgactl that was killed left it."""
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:  # as with any file that is not a socket
            found = os.lstat(path)
            if stat.S_ISSOCK(found.st_mode) and found.st_uid == os.geteuid():
                os.unlink(path)


def why(error: OSError | UnicodeError) -> str:
    """Why a listener cannot be opened."""
    if isinstance(error, UnicodeError):
        return "this is not the name of a host"
    # The numbers of gaierror are others; socket.create_server() adds internals to the text.
    number = 0 if isinstance(error, socket.gaierror) else error.errno
    return os.strerror(number) if number else error.strerror or str(error)


def shown(listener: socket.socket) -> str:
    """The address of a listener, for messages."""
    place = listener.getsockname()
    if isinstance(place, tuple):
        # getsockname() leaves out the interface of a link-local address.
        host, _ = socket.getnameinfo(place, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        return str(Target(host, place[1]))
    return str(Target(path=place))


def is_local(listener: socket.socket) -> bool:
    """Whether only programs on this host can connect."""
    place = listener.getsockname()
    return not isinstance(place, tuple) or place[0] == "::1" or place[0].startswith("127.")


def split(text: str) -> list[str]:
    """Split at colons; empty if that fails.

    An IPv6 address is in brackets. A path in the guest comes last, and may contain colons.
    """
    parts: list[str] = []
    at = 0
    while True:
        path = PATH.fullmatch(text, at)
        if path is not None and parts:
            return [*parts, path[1]]
        found = PART.match(text, at)
        if found is None:
            break
        parts.append(found[1] or found[2])
        at = found.end()
        if text[at : at + 1] != ":":
            break
        at += 1
    return parts if at == len(text) and not text.endswith(":") else []


def local(parts: list[str]) -> Listen:
    if len(parts) == 2:
        return Listen(parts[0], number(parts[1], least=0))
    if is_path(parts[0]):
        return Listen(path=os.path.abspath(parts[0]))
    return Listen(port=number(parts[0], least=0))


def near(text: str) -> Target:
    """A port on the guest itself."""
    return Target(LOOPBACK, number(text))


def is_path(text: str) -> bool:
    return text.startswith(("/", "./", "../"))


def number(text: str, least: int = 1) -> int:
    port = number_in(range(least, HIGHEST_PORT + 1), text)
    if port is None:
        raise ValueError(f"'{text}' is not a port, a number from {least} to {HIGHEST_PORT}")
    return port
