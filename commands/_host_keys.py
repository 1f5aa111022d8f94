"""Generates new ssh host keys, and reloads sshd.

What must stay true: the keys are generated in a directory that only root can read, and replace the
old ones together. If sshd cannot be reloaded, the old ones are restored, so that sshd always serves
the keys in the files.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from binascii import a2b_base64, b2a_base64
from typing import NamedTuple

from qga import QgaError
from qga.wording import counted

from ._processes import pid_in
from ._replacing import directory_of_root, read_own, replaced
from ._steps import NotApplicable, output_of

_FOLDER = "/etc/ssh"
_KEY = re.compile(r"ssh_host_([a-z0-9]+)_key")
_WITH_SIZES = ("rsa", "ecdsa")
_PATIENCE = 120.0  # seconds for one key: emulated guests are slow
_RELOAD = 30.0  # seconds
_MOST_KEYS = 8

_SYSTEMD_RUNS = "/run/systemd/system"  # sd_booted(3)
_UNITS = ("ssh.service", "sshd.service")
_PID_FILE = "/run/sshd.pid"


class _Key(NamedTuple):
    """type: as for ssh-keygen -t. path: of the private key. bits: None if the type has one size."""

    type: str
    path: str
    bits: str | None


def change() -> str:
    """Replace all host keys by new ones of the same types and sizes; returns what was done."""
    if not os.path.isdir(_FOLDER):
        raise NotApplicable(f"the guest has no OpenSSH server: {_FOLDER} does not exist")
    folder = directory_of_root(_FOLDER)
    keys = _keys(folder)
    if not keys:
        raise NotApplicable(f"the guest has no ssh host keys in {_FOLDER}")
    new = _generate(keys, folder)
    with replaced(new):
        reloaded = _reload_sshd()
    prints = ", ".join(f"{key.type.upper()} {_fingerprint(new[f'{key.path}.pub'])}" for key in keys)
    return f"new host keys: {prints}; {reloaded}"


def _keys(folder: str) -> list[_Key]:
    found = []
    for name in sorted(os.listdir(folder)):
        match = _KEY.fullmatch(name)
        if match:
            found.append(_Key(match[1], f"{folder}/{name}", _bits(match[1], f"{folder}/{name}")))
    if len(found) > _MOST_KEYS:
        raise QgaError(
            f"{folder} has {counted(len(found), 'host key')}; at most {_MOST_KEYS} are replaced"
        )
    return found


def _bits(kind: str, path: str) -> str | None:
    """The size of a key, if its type has several."""
    if kind not in _WITH_SIZES:
        return None
    size = output_of(["ssh-keygen", "-l", "-f", path], _PATIENCE).split(None, 1)[0]
    return size if size.isdecimal() else None


def _generate(keys: list[_Key], folder: str) -> dict[str, bytes]:
    """The contents of new files, by their paths."""
    workshop = f"{folder}/.qga-new-keys"
    shutil.rmtree(workshop, ignore_errors=True)  # of an agent that was killed
    os.mkdir(workshop, 0o700)
    try:
        return {path: content for key in keys for path, content in _make(key, workshop)}
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _make(key: _Key, workshop: str) -> list[tuple[str, bytes]]:
    path = f"{workshop}/{key.type}"
    size = ["-b", key.bits] if key.bits else []
    output_of(["ssh-keygen", "-q", "-t", key.type, *size, "-N", "", "-f", path], _PATIENCE)
    made = [(key.path, read_own(path)), (f"{key.path}.pub", read_own(f"{path}.pub"))]
    return [(name, content) for name, content in made if content]


def _reload_sshd() -> str:
    """Make a running sshd reload its keys, and return what was done."""
    if os.path.isdir(_SYSTEMD_RUNS):
        from . import _readiness

        units = _readiness.units(list(_UNITS)) or []
        active = [each["name"] for each in units if each["state"] == "active"]
        if active:
            output_of(["systemctl", "reload", active[0]], _RELOAD)
            return f"{active[0]} was reloaded"
    pid = pid_in(_PID_FILE, "sshd")
    if pid is None:
        return "sshd does not run, and reads them when it starts"
    os.kill(pid, signal.SIGHUP)
    return "sshd was told to read them (SIGHUP)"


def _fingerprint(public: bytes) -> str:
    """The fingerprint of a public key, as printed by ssh-keygen(1)."""
    from hashlib import sha256

    digest = sha256(a2b_base64(public.split()[1])).digest()
    return "SHA256:" + b2a_base64(digest, newline=False).decode("ascii").rstrip("=")
