"""Gives the guest another machine ID (machine-id(5)), as systemd-machine-id-setup(1) does."""

from __future__ import annotations

import os

from ._replacing import read_own, replaced
from ._steps import NotApplicable

_ID = "/etc/machine-id"
_ID_OF_DBUS = "/var/lib/dbus/machine-id"  # mostly a link to the other


def current() -> str:
    """The present ID, or "" if there is none."""
    for path in (_ID, _ID_OF_DBUS):
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                return file.read(64).strip()
        except OSError:
            continue
    return ""


def change() -> str:
    """Set a random ID, and return what was changed."""
    files = [path for path in (_ID, _ID_OF_DBUS) if _is_file(path)]
    if not files:
        raise NotApplicable(f"the guest has no machine ID: {_ID} does not exist")
    old, new = current(), _random_id()
    with replaced({path: f"{new}\n".encode() for path in files}):
        pass
    return f"the machine ID was {old or 'empty'} and is {new}, in {' and '.join(files)}"


def _is_file(path: str) -> bool:
    if path == _ID_OF_DBUS and os.path.islink(path):
        return False
    return os.path.lexists(path) and read_own(path) is not None


def _random_id() -> str:
    """A random UUID of version 4 (RFC 9562) in lower case, without hyphens."""
    octets = bytearray(os.urandom(16))
    octets[6] = octets[6] & 0x0F | 0x40
    octets[8] = octets[8] & 0x3F | 0x80
    return octets.hex()
