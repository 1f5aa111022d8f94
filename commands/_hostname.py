"""Gives the guest another host name: now, at the next boot, and in its own /etc/hosts."""

from __future__ import annotations

import os
import socket

from qga import QgaError

from ._replacing import read_own, replaced
from ._steps import output_of

MAX_NAME = 64  # bytes: HOST_NAME_MAX of gethostname(2)
_MAX_LABEL = 63

_SYSTEMD_RUNS = "/run/systemd/system"  # sd_booted(3)
_BUS = "/run/dbus/system_bus_socket"
_PROGRAM = "/usr/bin/hostnamectl"
_PATIENCE = 20.0  # seconds; D-Bus may have to start it
_ETC = "/etc"


def check(name: str) -> None:
    """Raise QgaError unless it is a host name of RFC 1123 that the kernel takes."""
    labels = name.split(".")
    is_valid = (
        len(name) <= MAX_NAME
        and all(_is_label(label) for label in labels)
        and not (len(labels) > 1 and labels[-1].isdecimal())  # an address, or like one
    )
    if not is_valid:
        raise QgaError(
            f"'{name[: 2 * MAX_NAME]}' is not a host name; use at most {MAX_NAME} letters, digits, "
            f"hyphens and dots (RFC 1123), such as web-2 or web-2.example.org"
        )


def _is_label(text: str) -> bool:
    letters = text.replace("-", "")
    is_bounded = 0 < len(text) <= _MAX_LABEL and "-" not in (text[0], text[-1])
    return is_bounded and letters.isascii() and letters.isalnum()


def change(name: str) -> str:
    """Set the host name, and return what was changed."""
    old = os.uname().nodename
    by_systemd = all(map(os.path.exists, (_SYSTEMD_RUNS, _BUS, _PROGRAM)))
    contents = _new_hosts(_names_of_its_own(old), name)
    if not by_systemd:
        contents[f"{_ETC}/hostname"] = f"{name}\n".encode()
    with replaced(contents):
        if by_systemd:
            output_of([_PROGRAM, "set-hostname", name], _PATIENCE)
        else:
            socket.sethostname(name)
    files = " and ".join(sorted({f"{_ETC}/hostname", *contents}))
    return f"the host name was {old} and is {name}, also in {files}"


def _names_of_its_own(name: str) -> set[bytes]:
    """The host name and the one for the next boot, which may differ; without that of loopback."""
    stored = read_own(f"{_ETC}/hostname") or b""
    return {name.encode(), *stored.split()} - {b"localhost", b"localhost.localdomain"}


def _new_hosts(old: set[bytes], new: str) -> dict[str, bytes]:
    """/etc/hosts with the new name, if an old one is there for an address of the guest itself."""
    path = f"{_ETC}/hosts"
    content = read_own(path)
    if content is None:
        return {}
    changed = b"".join(_renamed(line, old, new) for line in content.splitlines(keepends=True))
    return {} if changed == content else {path: changed}


def _renamed(line: bytes, old: set[bytes], new: str) -> bytes:
    """A line of hosts(5), with the new name if it is about the guest itself."""
    entry, mark, comment = line.partition(b"#")
    address, *names = entry.split() or [b""]
    if not address.startswith(b"127.") and address != b"::1":
        return line
    wanted = [_name(each, old, new.encode()) for each in names]
    if wanted == names:
        return line
    rest = entry[len(entry.rstrip()) :]
    return address + b"\t" + b" ".join(dict.fromkeys(wanted)) + rest + mark + comment


def _name(name: bytes, old: set[bytes], new: bytes) -> bytes:
    """The new name for an old one, also before a domain."""
    short, dot, domain = name.partition(b".")
    if name in old:
        return new
    if short not in old or not dot:
        return name
    return new if b"." in new else new + dot + domain
