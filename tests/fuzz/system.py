"""What users of the guest have a say in, as the kernel and the C library lay it down.

- Mounts: paths of any bytes, escaped as proc_pid_mountinfo(5) has it, are told as they are.
- utmp(5), which may hold anything: a user for each record of a login, and never an exception.
- Routes: an interface may have any name without a slash, a colon and white space.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from unittest import mock

from qga.wire.protocol import encode_return
from tests.fuzz.draw import Draw

mounts: Any = import_module("qga.commands._mounts")
network: Any = import_module("qga.commands.network")
users: Any = import_module("qga.commands.users")
AGENT: Any = SimpleNamespace()


def test_one(data: bytes) -> None:
    check = _CHECKS[data[0] % len(_CHECKS)] if data else check_utmp
    check(data[1:])


@contextmanager
def reading(module: Any, content: bytes) -> Iterator[None]:
    """Have what `module` reads files with, which its imports name so, give it `content`."""
    with ExitStack() as patches:
        for name in [name for name in vars(module) if name.startswith("read_")]:
            patches.enter_context(mock.patch.object(module, name, lambda path: content))
        yield


def check_mounts(data: bytes) -> None:
    draw = Draw(data)
    paths = [b"/" + draw.bytes(draw.byte() % 16).replace(b"\0", b"") for _ in range(3)]
    lines = [
        b"36 35 98:%d / %s rw,noatime shared:1 - ext4 %s rw\n"
        % (number, escape(path), escape(source))
        for number, (path, source) in enumerate(zip(paths, paths[1:]))
    ]
    told = mounts.parse(b"".join(lines))
    found = [(mount.device, *map(os.fsencode, (*mount.paths, mount.source))) for mount in told]
    assert found == [((98, 0), *paths[:2]), ((98, 1), *paths[1:])]


def escape(path: bytes) -> bytes:
    """As mangle() of the kernel has it."""
    return re.sub(rb"[ \t\n\\#]", lambda found: b"\\%03o" % ord(found[0]), path)


def check_utmp(data: bytes) -> None:
    size = users._RECORD.size
    records = [data[at : at + size] for at in range(0, len(data) - size + 1, size)]
    with reading(users, data):
        told = users.Users(AGENT).guest_get_users()
    logged_in = {
        record[44:76].partition(b"\0")[0].decode("utf-8", "replace")
        for record in records
        if int.from_bytes(record[:2], "little", signed=True) == 7
    }
    assert {user["user"] for user in told} == logged_in
    encode_return(told, with_numbers=True)


def check_routes(data: bytes) -> None:
    name = re.sub(rb"[\t-\r /:\0\xa0]", b"", data)[:15] or b"lo"
    table = b"Iface\n%s\t0002000A\t0102000A\t0003\t0\t0\t100\t00FFFFFF\t0\t0\t0 \n" % name
    with reading(network, table):
        (route,) = network.Network(AGENT).guest_network_get_route()
    assert route["iface"] == name.decode("utf-8", "replace")
    assert (route["destination"], route["gateway"]) == ("10.0.2.0", "10.0.2.1")


_CHECKS: list[Callable[[bytes], None]] = [check_mounts, check_utmp, check_routes]
