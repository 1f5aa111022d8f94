"""Whether the guest has booted and its services are ready.

Each member degrades by itself: what this guest cannot report is left out, never guessed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, Optional

from qga import CommandGroup, NotRequired, QgaError, UInt64, command
from qga.records import TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._links import Address

MAX_UNITS = 32
MAX_PORTS = 32
"""Units and ports of one request."""

MAX_FAILED = 100
"""Failed units that are listed."""

QgaCloudInitState = Literal["not-started", "running", "done", "error", "disabled"]


class QgaBoot(TypedDict):
    manager: str
    finished: NotRequired[bool]
    state: NotRequired[str]
    jobs: NotRequired[int]
    reason: NotRequired[str]


class QgaCloudInit(TypedDict):
    state: QgaCloudInitState
    stage: NotRequired[str]
    errors: NotRequired[list[str]]


class QgaAddress(TypedDict):
    interface: str
    address: str
    prefix: int


QgaUnit = TypedDict("QgaUnit", {"name": str, "state": str, "sub-state": str, "load-state": str})

QgaReadiness = TypedDict(
    "QgaReadiness",
    {
        "uptime-ms": UInt64,
        "boot": QgaBoot,
        "failed-units": NotRequired[list[str]],
        "cloud-init": NotRequired[QgaCloudInit],
        "addresses": list[QgaAddress],
        "units": NotRequired[list[QgaUnit]],
        "listening": NotRequired[list[int]],
    },
)


class Readiness(CommandGroup):
    """Readiness of the guest."""

    @command(access="audit", blocking=True)
    def qga_get_readiness(
        self, units: Optional[list[str]] = None, ports: Optional[list[int]] = None
    ) -> QgaReadiness:
        """Report whether the guest has finished booting, and whether its services are ready.

        units: systemd units whose states to report, at most 32.
        ports: TCP ports to check, at most 32.
        Returns these members. `boot`: `manager` is systemd, openrc, or the name of process 1;
        `finished` is missing if it cannot be determined, and `reason` may say why; `state` is that
        of systemd, and `jobs` the number of its pending jobs. `cloud-init`: missing if it is not
        installed; its errors are the final ones, and a stage that has crashed is one. `addresses`:
        all usable ones except loopback and link-local addresses (169.254.0.0/16 and fe80::/10).
        `listening`: the requested ports on which a program accepts connections. `units`: missing
        without systemd; `load-state` is loaded, or not-found if there is no such unit.
        """
        from . import _readiness

        _check(units or [], ports or [])
        boot, failed = _readiness.boot()
        uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
        result: QgaReadiness = {
            "uptime-ms": round(uptime * 1000),
            "boot": boot,
            "addresses": list(_addresses()),
        }
        if failed is not None:
            result["failed-units"] = failed
        cloud_init = _readiness.cloud_init(failed or [])
        if cloud_init is not None:
            result["cloud-init"] = cloud_init
        states = _readiness.units(units) if units else None
        if states is not None:
            result["units"] = states
        if ports:
            listening = _readiness.listening_ports()
            result["listening"] = [port for port in ports if port in listening]
        return result


def _check(units: list[str], ports: list[int]) -> None:
    if len(units) > MAX_UNITS or len(ports) > MAX_PORTS:
        raise QgaError(f"at most {MAX_UNITS} units and {MAX_PORTS} ports can be asked for at once")
    for unit in units:
        # Neither a pattern, which could match several units, nor an option.
        is_option = unit.startswith("-") and not unit.startswith("-.")  # -.mount is for /
        if not unit or is_option or not all(c.isalnum() or c in r":_.@\-" for c in unit):
            raise QgaError(f"'{unit}' is not the name of a unit; use one such as ssh.service")


def _addresses() -> Iterator[QgaAddress]:
    from socket import if_indextoname

    from ._address_events import usable_addresses

    for address in usable_addresses():
        if _is_of_the_link(address):
            continue
        try:
            name = if_indextoname(address.number)
        except OSError:  # it was removed in the meantime
            continue
        yield {"interface": name, "address": address.address, "prefix": address.prefix}


def _is_of_the_link(address: Address) -> bool:
    """Whether an address is link-local."""
    loopback, link = ("127.", "169.254."), ("fe8", "fe9", "fea", "feb")
    text = address.address
    return text.startswith(loopback if address.version == 4 else link) or text == "::1"
