"""Numbers in units, to read and to print.

humanize would do less than half of it: it reads no numbers.
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Optional

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
STEP = 1024

NUMBER = r"[0-9]+\.?[0-9]*|\.[0-9]+"
PART = re.compile(rf"({NUMBER})(ms|s|min|m|h|d)")
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


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


def amount_of(part: float, whole: float) -> str:
    """`0.4 of 1.5 GiB`: both in the unit of the whole."""
    number, unit = (size(int(whole)) or "").split()
    divisor = STEP ** UNITS.index(unit)
    shown = f"{part / divisor:.1f}" if divisor > 1 else f"{part:.0f}"
    return f"{shown} of {number} {unit}"


def seconds(text: str) -> float:
    """A duration such as 90, 500ms, 1h30m or inf. ValueError for anything else, and for 0."""
    stripped = text.strip()
    if stripped == "inf":
        return math.inf
    if re.fullmatch(NUMBER, stripped):
        value = float(stripped)
    elif re.fullmatch(f"({PART.pattern})+", stripped):
        value = sum(float(number) * SECONDS[unit] for number, unit in PART.findall(stripped))
    else:
        value = 0
    if not value:
        raise ValueError(f"'{text}' is not a duration")
    return value


def percent(part: float, whole: float) -> Optional[str]:
    return f"{100 * part / whole:.1f}%" if whole > 0 else None


def moment(seconds: float) -> str:
    """A time in seconds since 1970, in this host's time zone; the number if it is out of range."""
    try:
        return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g}"


def duration(seconds: float) -> str:
    """59 s, 2 min, 3 h 07 min, 4 d."""
    minutes, hours = int(seconds) // 60, int(seconds) // 3600
    # Hours matter less than days by then.
    if hours >= 48:
        return f"{hours // 24} d"
    if hours:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{minutes} min" if minutes else f"{int(seconds)} s"


def distance(seconds: float) -> str:
    """How far a zone is from UTC: +01:00."""
    minutes = round(abs(seconds) / 60)
    return f"{'-' if seconds < 0 else '+'}{minutes // 60:02}:{minutes % 60:02}"
