"""What a program may use at most."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Optional, Union

from qga.errors import QgaError
from qga.records import NamedTuple

Number = Union[int, float]

LEAST_CPU, MOST_CPU = 0.01, 8192.0
"""Shares of processors: a quota of 1 ms in 100 ms, the kernel's least, and CONFIG_NR_CPUS' most."""


class Limits(NamedTuple):
    """None is no limit.

    memory: bytes of all its processes together, or, without a cgroup, of each one's addresses.
    cpu: how many processors it may use on average, 0.5 for half of one.
    processes: with their threads; without a cgroup those of all programs of its user.
    cpu_seconds: of processor time, of each process.
    open_files, file_size: descriptors, and bytes of a file that is written, of each process.
    output: bytes of both its output streams together.
    """

    memory: Optional[int] = None
    cpu: Optional[float] = None
    processes: Optional[int] = None
    cpu_seconds: Optional[int] = None
    open_files: Optional[int] = None
    file_size: Optional[int] = None
    output: Optional[int] = None


NO_LIMITS = Limits()


def limits_of(given: Mapping[str, Number]) -> Limits:
    """The limits of a request. Raises QgaError for one that nothing could run in."""
    for name, value in given.items():
        least = LEAST_CPU if name == "cpu" else 1
        if not least <= value < math.inf:
            raise QgaError(f"Parameter 'limits.{name}' is {value}; use a number from {least} up")
    return Limits(**{name.replace("-", "_"): value for name, value in given.items()})  # type: ignore[arg-type]


def stricter(one: Limits, other: Limits) -> Limits:
    """The lower one of each."""
    return Limits(*(lower(a, b) for a, b in zip(one, other)))  # type: ignore[arg-type]


def lower(one: Optional[Number], other: Optional[Number]) -> Optional[Number]:
    return min((each for each in (one, other) if each is not None), default=None)


def resource_limits(limits: Limits, in_cgroup: bool) -> list[tuple[int, tuple[int, int]]]:
    """Arguments of setrlimit(2): what no cgroup limits, or all of it where there is none."""
    import resource

    wanted = {
        resource.RLIMIT_CPU: limits.cpu_seconds,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_FSIZE: limits.file_size,
    }
    if not in_cgroup:
        wanted[resource.RLIMIT_AS] = limits.memory
        wanted[resource.RLIMIT_NPROC] = limits.processes
    found = []
    for number, value in wanted.items():
        if value is not None:
            hard = resource.getrlimit(number)[1]
            most = value if hard == resource.RLIM_INFINITY else min(value, hard)
            # SIGXCPU at the soft limit, and SIGKILL at the hard one.
            above = most + 1 if number == resource.RLIMIT_CPU and most == value else most
            found.append((number, (most, above)))
    return found
