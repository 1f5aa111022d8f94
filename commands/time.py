"""The guest's clock and time zone."""

from __future__ import annotations

import os
import time
from typing import TypedDict

from qga import CommandGroup, NotRequired, command

_ZONES = "/usr/share/zoneinfo"

GuestTimezone = TypedDict("GuestTimezone", {"zone": NotRequired[str], "offset": int})


class Time(CommandGroup):
    """What time it is in the guest."""

    @command(access="audit")
    def guest_get_time(self) -> int:
        """Nanoseconds since 1970-01-01 UTC by the system clock, to the microsecond."""
        return time.time_ns() // 1000 * 1000

    @command(access="audit")
    def guest_get_timezone(self) -> GuestTimezone:
        """The time zone's abbreviation, and its offset east of UTC in seconds."""
        time.tzset()  # the administrator may have set another one
        now = time.localtime()
        return {"zone": now.tm_zone if _zone_is_known() else "UTC", "offset": now.tm_gmtoff}


def _zone_is_known() -> bool:
    """False for a TZ that is neither a file of the tz database nor a rule such as CET-1.

    The C library takes it for UTC, but calls it by the letters that the name begins with.
    """
    zone = os.environ.get("TZ", "").lstrip(":")
    is_rule = any(character.isdigit() for character in zone)
    return not zone or is_rule or os.path.exists(os.path.join(_ZONES, zone))
