"""Sets the system clock to the host's.

What must stay true: the clock is stepped only if it is more than MAX_OFFSET wrong, because programs
notice a step; a smaller error is left to NTP. KVM's PTP clock is the host's own and comes first.
The time in a request is late by the time that the request took.
"""

from __future__ import annotations

import os
import time

from qga import QgaError

from ._steps import NotApplicable
from ._sysfs import read_word

SECOND = 10**9  # nanoseconds
MAX_OFFSET = SECOND

_PTP = "/sys/class/ptp"
_DEV = "/dev"
_KVM = "KVM virtual PTP"  # drivers/ptp/ptp_kvm_common.c


def follow_host(given: int | None, since: float) -> str:
    """Set the clock, and return what was done.

    given: the host's time in nanoseconds since 1970, as of `since` (of time.monotonic).
    """
    host, source = _time_of_host(given, since)
    offset = time.time_ns() - host
    text = f"the clock was {_seconds(offset)} the host's ({source})"
    if abs(offset) <= MAX_OFFSET:
        return f"{text} and was left as it is"
    try:
        time.clock_settime_ns(time.CLOCK_REALTIME, time.time_ns() - offset)
    except OSError as error:
        raise QgaError(f"{text} and could not be set: {error.strerror}") from error
    return f"{text} and was set"


def kvm_clock() -> str | None:
    """The device of KVM's PTP clock, or None."""
    try:
        names = sorted(os.listdir(_PTP))
    except OSError:
        return None
    return next((f"{_DEV}/{name}" for name in names if _is_of_kvm(name)), None)


def _is_of_kvm(name: str) -> bool:
    try:
        return read_word(f"{_PTP}/{name}/clock_name") == _KVM
    except OSError:
        return False


def _time_of_host(given: int | None, since: float) -> tuple[int, str]:
    """The host's time now, in nanoseconds since 1970, and where it comes from."""
    device, trouble = kvm_clock(), ""
    if device is not None:
        try:
            return _read_clock(device), device
        except OSError as error:
            trouble = f"{device}: {error.strerror}"
    if given is not None:
        return given + int((time.monotonic() - since) * SECOND), "time of the request"
    if trouble:
        raise QgaError(f"{trouble}; and the request has no time")
    raise NotApplicable("the guest has no PTP clock of KVM, and the request has no time")


def _read_clock(device: str) -> int:
    fd = os.open(device, os.O_RDONLY)
    try:
        return time.clock_gettime_ns(_clock_id(fd))
    finally:
        os.close(fd)


def _clock_id(fd: int) -> int:
    """The clock behind a descriptor: FD_TO_CLOCKID of clock_getres(2)."""
    return ~fd << 3 | 3


def _seconds(offset: int) -> str:
    """`7.302 s behind`."""
    return f"{abs(offset) / SECOND:.3f} s {'ahead of' if offset >= 0 else 'behind'}"
