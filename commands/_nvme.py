"""The health log of an NVMe drive (NVM Express base specification, SMART / Health Information)."""

from __future__ import annotations

import os
import struct

from qga import NotRequired, UInt64
from qga.records import TypedDict

from ._block import GuestDiskBusType
from ._ioctl import ioctl_number

_COUNTERS = (
    "data-units-read",
    "data-units-written",
    "host-read-commands",
    "host-write-commands",
    "controller-busy-time",
    "power-cycles",
    "power-on-hours",
    "unsafe-shutdowns",
    "media-errors",
    "number-of-error-log-entries",
)  # 128 bits each, from byte 32 on

GuestDiskSmart = TypedDict(  # a union by its type; nvme is the only one
    "GuestDiskSmart",
    {
        "type": GuestDiskBusType,
        "critical-warning": NotRequired[int],
        "temperature": NotRequired[int],
        "available-spare": NotRequired[int],
        "available-spare-threshold": NotRequired[int],
        "percentage-used": NotRequired[int],
        "data-units-read-lo": NotRequired[UInt64],
        "data-units-read-hi": NotRequired[UInt64],
        "data-units-written-lo": NotRequired[UInt64],
        "data-units-written-hi": NotRequired[UInt64],
        "host-read-commands-lo": NotRequired[UInt64],
        "host-read-commands-hi": NotRequired[UInt64],
        "host-write-commands-lo": NotRequired[UInt64],
        "host-write-commands-hi": NotRequired[UInt64],
        "controller-busy-time-lo": NotRequired[UInt64],
        "controller-busy-time-hi": NotRequired[UInt64],
        "power-cycles-lo": NotRequired[UInt64],
        "power-cycles-hi": NotRequired[UInt64],
        "power-on-hours-lo": NotRequired[UInt64],
        "power-on-hours-hi": NotRequired[UInt64],
        "unsafe-shutdowns-lo": NotRequired[UInt64],
        "unsafe-shutdowns-hi": NotRequired[UInt64],
        "media-errors-lo": NotRequired[UInt64],
        "media-errors-hi": NotRequired[UInt64],
        "number-of-error-log-entries-lo": NotRequired[UInt64],
        "number-of-error-log-entries-hi": NotRequired[UInt64],
    },
)

_HEAD = struct.Struct("<BHBBB")
_COUNTER = struct.Struct("<QQ")

# struct nvme_admin_cmd of <linux/nvme_ioctl.h>
_ADMIN_COMMAND = struct.Struct("=BBHIIIQQIIIIIIIIII")
_NVME_IOCTL_ADMIN_CMD = ioctl_number("both", "N", 0x41, _ADMIN_COMMAND.size)
_GET_LOG_PAGE, _HEALTH_LOG, _ALL_NAMESPACES = 0x02, 0x02, 0xFFFFFFFF
_LOG_SIZE = 512


def read_smart(path: str) -> GuestDiskSmart | None:
    """The health of the drive at a device path, or None if it does not report it."""
    from array import array
    from fcntl import ioctl

    log = array("B", bytes(_LOG_SIZE))
    address, _ = log.buffer_info()
    words = (_LOG_SIZE // 4 - 1) << 16 | _HEALTH_LOG
    request = _ADMIN_COMMAND.pack(
        *(_GET_LOG_PAGE, 0, 0, _ALL_NAMESPACES, 0, 0, 0, address, 0, _LOG_SIZE),
        *(words, 0, 0, 0, 0, 0, 0, 0),
    )
    try:
        fd = os.open(path, os.O_RDONLY)
        try:
            if ioctl(fd, _NVME_IOCTL_ADMIN_CMD, bytearray(request)):
                return None
        finally:
            os.close(fd)
    except OSError:
        return None
    return parse_smart(log.tobytes())


def parse_smart(log: bytes) -> GuestDiskSmart:
    """The 512 bytes of the log, with the names of the interface."""
    warning, temperature, spare, threshold, used = _HEAD.unpack_from(log)
    smart: dict[str, object] = {
        "type": "nvme",
        "critical-warning": warning,
        "temperature": temperature,
        "available-spare": spare,
        "available-spare-threshold": threshold,
        "percentage-used": used,
    }
    for at, name in enumerate(_COUNTERS):
        smart[f"{name}-lo"], smart[f"{name}-hi"] = _COUNTER.unpack_from(log, 32 + 16 * at)
    return smart  # type: ignore[return-value]
