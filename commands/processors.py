"""The guest's processors and their load.

The times are read here, because psutil does not show which processors they belong to while one is
offline.
"""

import os
from functools import lru_cache
from typing import Literal, cast

from qga import CommandGroup, NotRequired, QgaError, UInt64, command, until_given_up
from qga.records import TypedDict

from ._sysfs import (
    keep_open,
    numbers_of,
    parse_number,
    read_kept,
    read_kept_word,
    read_word,
    understood,
)

_TICK = 1000 // os.sysconf("SC_CLK_TCK")  # milliseconds

_CPUS = "/sys/devices/system/cpu"

GuestLogicalProcessor = TypedDict(
    "GuestLogicalProcessor",
    {"logical-id": int, "online": bool, "can-offline": NotRequired[bool]},
)

GuestCpuStatsType = Literal["linux"]


class GuestCpuStats(TypedDict):
    type: GuestCpuStatsType
    cpu: int
    user: UInt64
    nice: UInt64
    system: UInt64
    idle: UInt64
    iowait: NotRequired[UInt64]
    irq: NotRequired[UInt64]
    softirq: NotRequired[UInt64]
    steal: NotRequired[UInt64]
    guest: NotRequired[UInt64]
    guestnice: NotRequired[UInt64]


class GuestLoadAverage(TypedDict):
    load1m: float
    load5m: float
    load15m: float


_LEAST_TIMES = 4  # of proc_stat(5): up to idle
_TIMES = list(GuestCpuStats.__annotations__)[len(("type", "cpu")) :]  # in the order of proc_stat(5)


class Processors(CommandGroup):
    """Processors and their load."""

    @command(access="audit")
    def guest_get_vcpus(self) -> list[GuestLogicalProcessor]:
        """List the processors: whether each is online, and whether it can be taken offline."""
        try:
            online = _numbers(read_kept_word(f"{_CPUS}/online"), "online")
            present = read_kept_word(f"{_CPUS}/present")
        except FileNotFoundError:  # a sandbox may show the directories alone
            return [_processor(number, fixed, _is_online(number)) for number, fixed in _find()]
        known = _known(present)
        if len(known) < len(_numbers(present, "present")):
            _known.cache_clear()  # one is being plugged in, and its directory comes later
        return [_processor(number, fixed, number in online) for number, fixed in known]

    @command(access="unrestricted", blocking=True)
    def guest_set_vcpus(self, vcpus: list[GuestLogicalProcessor]) -> int:
        """Take processors online or offline.

        vcpus: the `logical-id` of each processor, and whether it should be `online`.
        Returns how many were changed, in this order, before one failed. If the first one fails,
        this is an error.
        """
        for done, vcpu in enumerate(until_given_up(vcpus)):
            try:
                _set_online(vcpu["logical-id"], vcpu["online"])
            except QgaError:
                if not done:
                    raise
                return done
        return len(vcpus)

    @command(access="audit")
    def guest_get_cpustats(self) -> list[GuestCpuStats]:
        """Report how each online processor has spent its time since boot, in milliseconds."""
        _sum, *lines = read_kept("/proc/stat").split(b"\n")
        return understood(_cpu_stats, (line for line in lines if line.startswith(b"cpu")))

    @command(access="audit")
    def guest_get_load(self) -> GuestLoadAverage:
        """Report the load averages of the last 1, 5 and 15 minutes."""
        load1m, load5m, load15m = os.getloadavg()
        return {"load1m": load1m, "load5m": load5m, "load15m": load15m}


def _numbers(text: str, file: str) -> set[int]:
    """The numbers of a list such as 0-3,5, which a file of _CPUS consists of. Raises QgaError."""
    path = f"{_CPUS}/{file}"
    ranges = (part.partition("-") for part in text.split(",") if part)
    ends = ((parse_number(a, path), parse_number(b or a, path)) for a, _, b in ranges)
    return {each for first, last in ends for each in range(first, last + 1)}


@lru_cache(maxsize=1)
def _known(_present: str) -> list[tuple[int, bool]]:
    """Cached as long as the same processors are present."""
    return _find()


def _find() -> list[tuple[int, bool]]:
    """The processors, and whether each is fixed, which means that it has no file `online`."""
    directory = keep_open(_CPUS)
    files = ((number, f"cpu{number}/online") for number in numbers_of("cpu", directory))
    return [(number, not os.access(file, os.F_OK, dir_fd=directory)) for number, file in files]


def _is_online(number: int) -> bool:
    """Whether a processor is online by its own file."""
    try:
        return read_word(f"{_CPUS}/cpu{number}/online") != "0"
    except FileNotFoundError:
        return True


def _processor(number: int, fixed: bool, online: bool) -> GuestLogicalProcessor:
    return {"logical-id": number, "online": fixed or online, "can-offline": not fixed}


def _cpu_stats(line: bytes) -> GuestCpuStats:
    """Raises ValueError."""
    name, *times = line.split()
    if len(times) < _LEAST_TIMES:
        raise ValueError(line)
    stats = {"type": "linux", "cpu": int(name[len("cpu") :])}
    for member, ticks in zip(_TIMES, times):
        stats[member] = int(ticks) * _TICK
    return cast(GuestCpuStats, stats)


def _set_online(number: int, online: bool) -> None:
    directory = f"{_CPUS}/cpu{number}/"
    try:
        directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise QgaError(f"Could not open '{directory}': {error.strerror}") from error
    try:
        fd = os.open("online", os.O_RDWR, dir_fd=directory_fd)
    except FileNotFoundError:
        if not online:
            raise QgaError(f"logical processor #{number} can't be offlined") from None
        return
    except OSError as error:
        raise QgaError(f"could not open {directory}/online: {error.strerror}") from error
    finally:
        os.close(directory_fd)
    try:
        if (os.read(fd, 1) == b"1") != online:
            os.pwrite(fd, b"1" if online else b"0", 0)
    except OSError as error:
        raise QgaError(f'write("{directory}online"): {error.strerror}') from error
    finally:
        os.close(fd)
