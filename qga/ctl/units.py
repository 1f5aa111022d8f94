"""Numbers as people read them."""

from __future__ import annotations

from datetime import datetime
from typing import Optional

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
STEP = 1024


def size(count: Optional[int]) -> Optional[str]:
    """A number of bytes; None stays None."""
    if count is None:
        return None
    value = float(count)
    for unit in UNITS:
        if abs(value) < STEP or unit == UNITS[-1]:
            break
        value /= STEP
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def percent(part: float, whole: float) -> Optional[str]:
    return f"{100 * part / whole:.1f}%" if whole > 0 else None


def moment(seconds: float) -> str:
    """A time in seconds since 1970, as this host's zone has it; the number if it is no time."""
    try:
        return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g}"


def duration(seconds: float) -> str:
    """As people say it: 59 s, 2 min, 3 h 07 min, 4 d."""
    minutes, hours = int(seconds) // 60, int(seconds) // 3600
    if hours >= 48:
        return f"{hours // 24} d"
    if hours:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{minutes} min" if minutes else f"{int(seconds)} s"


def distance(seconds: float) -> str:
    """How far a zone is from UTC: +01:00."""
    minutes = round(abs(seconds) / 60)
    return f"{'-' if seconds < 0 else '+'}{minutes // 60:02}:{minutes % 60:02}"
