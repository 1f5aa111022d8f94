"""The rows of the table, and the goals for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, Optional

TIMES = "\N{MULTIPLICATION SIGN}"

Agent = Literal["ours", "simd"]
"""Which of ours."""


class Goal(NamedTuple):
    """A bound for our figure (`ours`), or for ours divided by the original's (`ratio`)."""

    of: Literal["ours", "ratio"]
    relation: Literal["≤", "≥"]
    bound: float

    def is_met(self, ours: float, original: Optional[float]) -> Optional[bool]:
        """None if there is nothing to compare with."""
        if self.of == "ratio":
            if original is None:
                return None
            # As a product, so that an original of zero divides nothing.
            bound = self.bound * original
        else:
            bound = self.bound
        return ours <= bound if self.relation == "≤" else ours >= bound


class Figure(NamedTuple):
    """A row: the key that measures use, its text, its unit, and the goal if it has one."""

    key: str
    what: str
    unit: str
    goal: Optional[Goal] = None
    agent: Agent = "ours"


def _ratio(relation: Literal["≤", "≥"], bound: float) -> Goal:
    return Goal("ratio", relation, bound)


def _ours(relation: Literal["≤", "≥"], bound: float) -> Goal:
    return Goal("ours", relation, bound)


def _transfers() -> Iterator[Figure]:
    """Reading and writing files, by Python's base64 and by pybase64."""
    goals: dict[tuple[Agent, str], tuple[float, ...]] = {
        ("ours", "read"): (2.5, 4, 4),
        ("ours", "write"): (5, 6, 6),
        ("simd", "read"): (5, 10, 12),
        ("simd", "write"): (9, 12, 12),
    }
    for (agent, verb), bounds in goals.items():
        for (size, text), bound in zip(SIZES.items(), bounds):
            what = f"file {verb}, {text} a request" + (", SIMD base64" if agent == "simd" else "")
            yield Figure(f"{verb} {size}", what, "MB/s", _ratio("≥", bound), agent)


SIZES = {64 * 1024: "64 KiB", 1024 * 1024: "1 MiB", 8 * 1024 * 1024: "8 MiB"}

FIGURES = (
    Figure("ping p50", "guest-ping round trip, p50", "µs", _ratio("≤", 0.5)),
    Figure("ping p99", "guest-ping round trip, p99", "µs"),
    Figure("ping cpu", "CPU time per guest-ping", "µs", _ratio("≤", 0.4)),
    Figure("exec", "guest-exec of /bin/true until exited", "ms", _ratio("≤", 1.0)),
    *_transfers(),
    Figure("writes", "write calls for a reply of 1 MiB", "", _ratio("≤", 1 / 20)),
    Figure("peak memory", "peak memory of a 48 MiB read", "MB", _ratio("≤", 0.5)),
    Figure("memory kept", "memory kept after a 48 MiB read", "MB", _ours("≤", 1)),
    Figure("request kept", "memory kept after a 60 MB request", "MB", _ours("≤", 4)),
    Figure("idle memory", "idle memory (RSS), after the first ping", "MB", _ours("≤", 13)),
    Figure("start", "start to first answer", "ms", _ours("≤", 45)),
    Figure("idle connected", "context switches, idle, client connected", "/s", _ours("≤", 0)),
    Figure("idle alone", "context switches, idle, no client", "/s", _ours("≤", 0)),
    Figure("growth", "memory growth over many mixed requests", "KB", _ours("≤", 500)),
    Figure("mixed", "mixed requests, pipelined", "/s"),
    Figure("long request", "long request in 4 KiB pieces, CPU time", "ms"),
    Figure("long : short", "the same : one of a tenth of its size", TIMES, _ours("≤", 11)),
    Figure("children failed", "many children at once: failed", "", _ours("≤", 0)),
    Figure("children", "many children at once: time beyond their own second", "s"),
    Figure("clients", "many clients at once: pings together", "/s"),
    Figure("clients : client", "the same : one client's", TIMES, _ours("≥", 1)),
    Figure("guest ping p50", "in a guest: guest-ping round trip, p50", "µs", _ratio("≤", 0.5)),
    Figure("guest ping p99", "in a guest: guest-ping round trip, p99", "µs"),
    Figure("guest read", "in a guest: file read, 1 MiB a request", "MB/s", _ratio("≥", 4)),
    Figure("guest write", "in a guest: file write, 1 MiB a request", "MB/s", _ratio("≥", 6)),
    Figure(
        "guest read", "in a guest: file read, SIMD base64", "MB/s", _ratio("≥", 4), agent="simd"
    ),
    Figure(
        "guest write", "in a guest: file write, SIMD base64", "MB/s", _ratio("≥", 6), agent="simd"
    ),
    Figure("guest cp out", "in a guest: qgactl cp from it, 64 MB", "MB/s", _ratio("≥", 2)),
    Figure("guest cp in", "in a guest: qgactl cp into it, 64 MB", "MB/s", _ratio("≥", 2)),
    Figure("guest cp out", "in a guest: the same, SIMD base64", "MB/s", _ratio("≥", 2), "simd"),
    Figure(
        "guest cp in", "in a guest: the same into it, SIMD base64", "MB/s", _ratio("≥", 2), "simd"
    ),
    Figure(
        "guest fetch", "in a guest: Ansible's fetch; our qgactl cp from it", "MB/s", _ratio("≥", 5)
    ),
    Figure(
        "guest put", "in a guest: Ansible's copy; our qgactl cp into it", "MB/s", _ratio("≥", 5)
    ),
    Figure("guest copy out", "in a guest: copy from it, ours over a data port", "MB/s"),
    Figure("guest copy in", "in a guest: copy into it, ours over a data port", "MB/s"),
    Figure(
        "guest idle connected", "in a guest: context switches, host connected", "/s", _ours("≤", 0)
    ),
    Figure("guest idle alone", "in a guest: context switches, no host", "/s", _ours("≤", 0)),
)


def of_command(command: str) -> Figure:
    """The row of an information command."""
    return Figure(f"call {command}", f"{command} round trip, p50", "µs", _ratio("≤", 0.8))


def of_command_in_guest(command: str) -> Figure:
    key, what, unit, goal, _ = of_command(command)
    return Figure(f"guest {key}", f"in a guest: {what}", unit, goal)
