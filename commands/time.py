"""The guest's clock and time zone."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Optional

from qga import CommandGroup, NotRequired, QgaError, command
from qga.records import TypedDict

from ._ioctl import ioctl_number

if TYPE_CHECKING:
    from qga.findings import Finding
    from qga.settings.config import Config

_TZ = os.environ.get("TZ", "").lstrip(":")
_SOME_TIME = (2000, 1, 1, 0, 0, 0, 0, 1, 0)
_ZONES = "/usr/share/zoneinfo"

GuestTimezone = TypedDict("GuestTimezone", {"zone": NotRequired[str], "offset": int})

_CLOCK_SOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
# Read through an I/O port or memory.
_SLOW_SOURCES = ("acpi_pm", "hpet", "jiffies", "pit", "refined-jiffies")

_YEARS = range(1970, 2070)  # that QEMU's agent takes, in local time

_RTC = "/dev/rtc0"
# <linux/rtc.h>
_RTC_TIME = struct.Struct("9i")  # struct rtc_time: sec min hour mday mon year wday yday isdst
_RTC_RD_TIME = ioctl_number("read", "p", 9, _RTC_TIME.size)
_RTC_SET_TIME = ioctl_number("write", "p", 10, _RTC_TIME.size)


class Time(CommandGroup):
    """Clock and time zone."""

    @command(access="audit")
    def guest_get_time(self) -> int:
        """Report the system time in nanoseconds since 1970-01-01 UTC, to the microsecond."""
        return time.time_ns() // 1000 * 1000

    @command(access="audit")
    def guest_get_timezone(self) -> GuestTimezone:
        """Report the abbreviation of the time zone, and its offset east of UTC in seconds."""
        # mktime(3) notices another time zone, as tzset(3) does. Python's tzset() does much more,
        # which takes longer.
        time.mktime(_SOME_TIME)
        now = time.localtime()
        zone = now.tm_zone if _zone_is_known() else ""
        return {"zone": zone or "UTC", "offset": now.tm_gmtoff}

    @command(access="unrestricted", blocking=True)
    def guest_set_time(self, time: Optional[int] = None) -> None:
        """Set the system clock and the hardware clock.

        time: nanoseconds since 1970-01-01 UTC. By default the system clock is set from the hardware
            clock, for example after the guest was paused.
        """
        if time is None:
            _set_clock(_read_rtc() * 10**9)
            return
        if _year(time) not in _YEARS:
            raise QgaError("Invalid time")
        _set_clock(_whole_microseconds(time))
        if os.path.exists(_RTC):
            _write_rtc(_towards_zero(time, 10**9))

    @classmethod
    def do_diagnose(cls, config: Config) -> Iterator[Finding]:
        from qga.findings import ok, warning

        source = _clock_source()
        if source in _SLOW_SOURCES:
            yield warning(
                "clock",
                f"the clock source is {source}, which is slow to read",
                "configure kvm-clock or a stable TSC on the host (libvirt: <timer name='kvmclock' "
                "present='yes'/>, <cpu mode='host-passthrough'/>)",
            )
        elif source:
            yield ok("clock", f"the clock source is {source}")
        if os.path.exists(_RTC):
            zone = "local time" if _rtc_is_local() else "UTC"
            yield ok("clock", f"the hardware clock is {_RTC}, in {zone}")
        else:
            text = f"there is no hardware clock {_RTC}: guest-set-time works only with a time"
            if os.uname().machine.startswith("s390"):  # no such machine has one
                yield ok("clock", text)
            else:
                advice = (
                    "load its driver (on x86 rtc_cmos, on ARM rtc_pl031), or have the host add one"
                )
                yield warning("clock", text, advice)


def _clock_source() -> str:
    try:
        with open(_CLOCK_SOURCE, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _zone_is_known() -> bool:
    """False for a TZ that is neither in the tz database nor a rule such as CET-1.

    The C library takes it for UTC, but abbreviates it to the letters at its beginning.
    """
    is_rule = any(character.isdigit() for character in _TZ)
    return not _TZ or is_rule or os.path.exists(os.path.join(_ZONES, _TZ))


def _year(nanoseconds: int) -> int:
    return time.localtime(_towards_zero(nanoseconds, 10**9)).tm_year


def _whole_microseconds(nanoseconds: int) -> int:
    """What QEMU's agent sets: -999 to -1 are 0."""
    return _towards_zero(nanoseconds, 1000) * 1000


def _towards_zero(number: int, divisor: int) -> int:
    """The quotient as C rounds it."""
    return number // divisor if number >= 0 else -(-number // divisor)


def _set_clock(nanoseconds: int) -> None:
    try:
        time.clock_settime_ns(time.CLOCK_REALTIME, nanoseconds)
    except OSError as error:
        raise QgaError(f"Failed to set time to guest: {error.strerror}") from error


def _read_rtc() -> int:
    """Read the hardware clock. Returns seconds since 1970-01-01 UTC."""
    second, minute, hour, day, month, year, *_ = _RTC_TIME.unpack(_rtc_ioctl(_RTC_RD_TIME, b""))
    fields = (year + 1900, month + 1, day, hour, minute, second)
    if _rtc_is_local():
        return int(time.mktime((*fields, 0, 0, -1)))
    from calendar import timegm  # not at the start: half a megabyte

    return timegm((*fields, 0, 0, 0))


def _write_rtc(seconds: int) -> None:
    now = time.localtime(seconds) if _rtc_is_local() else time.gmtime(seconds)
    fields = (now.tm_sec, now.tm_min, now.tm_hour, now.tm_mday, now.tm_mon - 1, now.tm_year - 1900)
    _rtc_ioctl(_RTC_SET_TIME, _RTC_TIME.pack(*fields, 0, 0, 0))


def _rtc_ioctl(request: int, argument: bytes) -> bytes:
    from fcntl import ioctl

    try:
        fd = os.open(_RTC, os.O_RDONLY)
        try:
            return ioctl(fd, request, argument.ljust(_RTC_TIME.size, b"\0"))
        finally:
            os.close(fd)
    except OSError as error:
        raise QgaError(f"hardware clock {_RTC}: {error.strerror}") from error


def _rtc_is_local() -> bool:
    """Whether the hardware clock runs in local time: the third line of adjtime(5)."""
    try:
        with open("/etc/adjtime", encoding="ascii", errors="replace") as file:
            return file.read().split("\n")[2:3] == ["LOCAL"]
    except OSError:
        return False
