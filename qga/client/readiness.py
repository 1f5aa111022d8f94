"""The results of qga-get-readiness as typed values."""

from __future__ import annotations

from typing import NamedTuple, Optional


class Boot(NamedTuple):
    """The state of the boot. `finished` is None if it is unknown; `reason` may say why.

    manager: "systemd", "openrc", or the name of process 1. state: of systemd, such as "running" or
    "degraded". jobs: the number of systemd's pending jobs.
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
    """A systemd unit with its active state, its sub-state and its load state (systemctl(1)).

    load_state: "not-found" if there is no such unit; "" if the agent does not report it.
    """

    name: str
    state: str
    sub_state: str
    load_state: str = ""


class Readiness(NamedTuple):
    """`failed_units` is None without systemd, `cloud_init` if it is not installed.

    addresses: except loopback and link-local ones. units: those that were asked for. listening: of
    the TCP ports that were asked for, those with a listening program.
    """

    uptime_ms: int
    boot: Boot
    addresses: tuple[UsableAddress, ...]
    failed_units: Optional[tuple[str, ...]] = None
    cloud_init: Optional[CloudInit] = None
    units: tuple[Unit, ...] = ()
    listening: tuple[int, ...] = ()
