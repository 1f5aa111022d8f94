"""The guest's clock and time zone."""

from __future__ import annotations

import time
from typing import TypedDict

from qga import CommandGroup, NotRequired, command

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
        return {"zone": now.tm_zone, "offset": now.tm_gmtoff}
