"""How far a guest is with its start, as its agent reports it."""

from __future__ import annotations

from typing import NamedTuple, Optional


class Boot(NamedTuple):
    """`finished` is None where nothing in the guest tells; `reason` may say why.

    manager: "systemd", "openrc", or the name of process 1. state: systemd's, such as "running" or
    "degraded". jobs: how many systemd has left.
    """

    manager: str
    finished: Optional[bool] = None
    state: str = ""
    jobs: Optional[int] = None
    reason: str = ""


class CloudInit(NamedTuple):
    """state: "not-started", "running" (at `stage`), "done", "error" or "disabled"."""

    state: str
    stage: str = ""
    errors: tuple[str, ...] = ()


class UsableAddress(NamedTuple):
    interface: str
    address: str
    prefix: int


class Unit(NamedTuple):
    """A unit of systemd: its active state and the more detailed one, as of systemctl(1)."""

    name: str
    state: str
    sub_state: str


class Readiness(NamedTuple):
    """`failed_units` is None where units are not known, `cloud_init` where it is not installed.

    addresses: without those of the loopback and of the link. units, listening: those that were
    asked for, the latter being the TCP ports on which a program accepts connections.
    """

    uptime_ms: int
    boot: Boot
    addresses: tuple[UsableAddress, ...]
    failed_units: Optional[tuple[str, ...]] = None
    cloud_init: Optional[CloudInit] = None
    units: tuple[Unit, ...] = ()
    listening: tuple[int, ...] = ()
