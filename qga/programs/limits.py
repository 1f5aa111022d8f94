"""The resource limits of a program."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Optional, Union

from qga.errors import QgaError
from qga.records import NamedTuple

Number = Union[int, float]

LEAST_CPU, MOST_CPU = 0.01, 8192.0
"""Processors: the kernel's minimum quota is 1 ms in 100 ms, the maximum CONFIG_NR_CPUS is 8192."""

MOST = 2**63 - 1
"""Of any other limit: neither Python nor the kernel takes more bits."""

MOST_CPU_SECONDS = MOST // 10**9
"""The kernel counts nanoseconds. With 2**55 seconds that count is 0, and the program is killed."""


class Limits(NamedTuple):
    """What a program may use at most; None is no limit.

    memory: bytes of all its processes together; without a cgroup, address space of each process.
    cpu: processors on average; 0.5 is half of one.
    processes: processes and threads; without a cgroup, all those of its user.
    cpu_seconds: seconds of processor time of each process.
    open_files: descriptors of each process.
    file_size: bytes of the largest file that a process may write.
    output: bytes of both output streams together.
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
    """The limits of a request. Raises QgaError if no program could run within one of them."""
    for name, value in given.items():
        least = LEAST_CPU if name == "cpu" else 1
        if not least <= value < math.inf:
            raise QgaError(f"Parameter 'limits.{name}' is {value}; use a number from {least} up")
    return Limits(**{name.replace("-", "_"): value for name, value in given.items()})  # type: ignore[arg-type]


def stricter(one: Limits, other: Limits) -> Limits:
    """The lower of the two values of each limit."""
    if other == NO_LIMITS:
        return one
    return Limits(*(lower(a, b) for a, b in zip(one, other)))  # type: ignore[arg-type]


def lower(one: Optional[Number], other: Optional[Number]) -> Optional[Number]:
    return min((each for each in (one, other) if each is not None), default=None)


def resource_limits(limits: Limits, in_cgroup: bool) -> list[tuple[int, tuple[int, int]]]:
    """Arguments of setrlimit(2), for the limits that no cgroup enforces."""
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
            known = MOST_CPU_SECONDS if number == resource.RLIMIT_CPU else MOST
            most = min(value, known if hard == resource.RLIM_INFINITY else hard)
            # The kernel sends SIGXCPU at the soft limit and SIGKILL at the hard one.
            above = most + 1 if number == resource.RLIMIT_CPU and most == value else most
            found.append((number, (most, above)))
    return found


def raised_by_kernel(pid: int, cpu_seconds: int) -> bool:
    """Whether a process that is not reaped yet has had SIGXCPU.

    With each one the kernel raises the soft limit by a second. The processor time would not show
    it: /proc scales that, to more or less than what counts for the limit.
    """
    try:
        with open(f"/proc/{pid}/limits", "rb") as file:  # prlimit(2) needs CAP_SYS_RESOURCE
            soft = file.read().partition(b"Max cpu time")[2].split()[0]
    except (OSError, IndexError):  # no /proc, or other code in this process has reaped it
        return False
    return soft.isdigit() and int(soft) > cpu_seconds
