"""Makes the guest's DHCP clients renew their leases.

After a restore, the server may have given the address to another guest, and a lease may have
expired without the client noticing. Clients renew in the background, so the report only lists the
clients that were asked.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from functools import partial
from itertools import islice
from socket import if_indextoname
from typing import Any, Callable

from qga import QgaError

from . import _readiness
from ._processes import is_run_by_root, pid_in
from ._steps import NotApplicable, output_of, reason_of
from ._sysfs import read_bytes

Renewal = tuple[str, Callable[[], Any]]
"""The interface and its client, and a function that has it renew."""

MOST_INTERFACES = 16
"""Interfaces of one client that are renewed."""

_PATIENCE = 15.0  # seconds for each program
_LEASE_PATIENCE = 60.0  # seconds for dhclient, which returns when it has a lease

_RUN = "/run"
_NETWORKD = "systemd-networkd.service"
_NETWORK_MANAGER = "NetworkManager"
_VERSION = re.compile(r"(.+?)(-[46])?")  # the interface of dhcpcd, and of IP if it serves one only


def renew() -> str:
    """Ask all clients to renew; returns which ones were asked. Raises QgaError if one failed."""
    asked: list[str] = []
    failed: list[str] = []
    for client in (_networkd, _network_manager, _dhclient, _dhcpcd, _udhcpc):
        try:
            found = list(islice(client(), MOST_INTERFACES))
        except (QgaError, OSError) as error:
            failed.append(reason_of(error))
            continue
        for name, act in found:
            try:
                act()
                asked.append(name)
            except (QgaError, OSError) as error:
                failed.append(f"{name}: {reason_of(error)}")
    done = f"asked to renew: {', '.join(asked)}" if asked else ""
    if failed:
        raise QgaError("; ".join(filter(None, [*failed, done])))
    if not asked:
        raise NotApplicable(
            "no DHCP lease of systemd-networkd or NetworkManager, and no dhclient, dhcpcd or udhcpc"
        )
    return done


def _networkd() -> Iterator[Renewal]:
    units = _readiness.units([_NETWORKD]) or []
    if not any(each["state"] == "active" for each in units):
        return
    for number in _files("systemd/netif/leases", re.compile(r"([0-9]{1,9})")).values():
        try:
            name = if_indextoname(int(number))
        except OSError:  # the interface is gone
            continue
        yield f"{name} (systemd-networkd)", partial(_run, "networkctl", "renew", name)


def _network_manager() -> Iterator[Renewal]:
    if not os.path.isdir(f"{_RUN}/{_NETWORK_MANAGER}"):
        return
    fields = "GENERAL.DEVICE,GENERAL.CON-UUID,DHCP4.OPTION"
    devices = output_of(["nmcli", "--terse", "--fields", fields, "device", "show"], _PATIENCE)
    for block in devices.split("\n\n"):
        first, second, third, *_ = [*block.strip().splitlines(), "", "", ""]
        name, connection = first.partition(":")[2], second.partition(":")[2]
        if third.startswith("DHCP4.OPTION"):
            # `nmcli device reapply` keeps the lease.
            up = ("--wait", "0", "connection", "up", "uuid", connection, "ifname", name)
            yield f"{name} ({_NETWORK_MANAGER})", partial(_run, "nmcli", *up)


def _dhclient() -> Iterator[Renewal]:
    """As ifupdown and the scripts of Red Hat start it. It has no signal for this."""
    for file, name in _files("", re.compile(r"dhclient6?[.-](.+)\.pid")).items():
        pid = pid_in(file, "dhclient")
        if pid is not None:
            yield f"{name} (dhclient)", partial(_restart_dhclient, file, pid)


def _restart_dhclient(file: str, pid: int) -> None:
    """Stop it without releasing the lease, and start it again as it was started."""
    # A user's process may have the number and the name, and its arguments can name a script.
    if not is_run_by_root(pid):
        raise QgaError(f"process {pid} of {file} belongs to another user: remove the file")
    words = read_bytes(f"/proc/{pid}/cmdline").split(b"\0")[1:-1]
    _run("dhclient", "-x", "-pf", file)
    output_of(["dhclient", *map(os.fsdecode, words)], _LEASE_PATIENCE)


def _dhcpcd() -> Iterator[Renewal]:
    """One process for all interfaces, or one for each."""
    if any(pid_in(f"{_RUN}/{file}", "dhcpcd") for file in ("dhcpcd/pid", "dhcpcd.pid")):
        yield "all interfaces (dhcpcd)", partial(_run, "dhcpcd", "--rebind")
        return
    files = {
        **_files("dhcpcd", re.compile(r"(?:dhcpcd-)?(.+)\.pid")),
        **_files("", re.compile(r"dhcpcd-(.+)\.pid")),
    }
    for word in sorted({word for file, word in files.items() if pid_in(file, "dhcpcd")}):
        # Without the option that it was started with, another dhcpcd would start.
        name, version = _VERSION.fullmatch(word).groups()  # type: ignore[union-attr]
        options = [version] if version else []
        yield f"{name} (dhcpcd)", partial(_run, "dhcpcd", *options, "--rebind", name)


def _udhcpc() -> Iterator[Renewal]:
    for file, name in _files("", re.compile(r"udhcpc[.-](.+)\.pid")).items():
        pid = pid_in(file, "udhcpc")
        if pid is not None:
            yield f"{name} (udhcpc)", partial(os.kill, pid, signal.SIGUSR1)


def _files(folder: str, pattern: re.Pattern[str]) -> dict[str, str]:
    """Files in a directory of /run, in order, each with the interface that its name has."""
    try:
        names = sorted(os.listdir(os.path.join(_RUN, folder)))
    except OSError:
        return {}
    found = ((name, pattern.fullmatch(name)) for name in names)
    return {os.path.join(_RUN, folder, name): match[1] for name, match in found if match}


def _run(*argv: str) -> str:
    return output_of(list(argv), _PATIENCE)
