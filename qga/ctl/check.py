"""Checks of a guest for Nagios, Icinga and others that run its plugins.

The output and the exit status follow the Nagios Plugin Development Guidelines. nagiosplugin would
do what `Result.figure` and `line_of` do, and bring a command line and a log of its own.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, Optional

import typer

from qga.client.errors import AgentError, GuestFrozen
from qga.client.monitoring.metrics import read_metrics
from qga.client.monitoring.usage import Level, Usage, usage
from qga.ctl import display
from qga.ctl.app import command, since
from qga.ctl.command import LOOK
from qga.ctl.settings import Settings
from qga.ctl.values import Expected, pairs

LIMITS = "CRITICAL or WARNING:CRITICAL"


class State(IntEnum):
    """What a plugin exits with."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


# The worst first: what is known to be wrong comes before what is not known.
SEVERITY = (State.CRITICAL, State.WARNING, State.UNKNOWN, State.OK)


@dataclass(frozen=True)
class Limits:
    """From which values on a check warns and is critical."""

    warning: Optional[float]
    critical: float

    def state(self, value: float) -> State:
        if value >= self.critical:
            return State.CRITICAL
        is_high = self.warning is not None and value >= self.warning
        return State.WARNING if is_high else State.OK


class Result(NamedTuple):
    """Of one check: `value` in `unit`, None if it is not known."""

    name: str
    state: State
    text: str
    value: Optional[float] = None
    unit: str = ""
    limits: Optional[Limits] = None

    @property
    def figure(self) -> str:
        """As performance data: 'label'=value[unit];[warning];[critical]."""
        if self.value is None:
            return ""
        at = (self.limits.warning, self.limits.critical) if self.limits else (None, None)
        fields = ["" if each is None else f"{each:g}" for each in at]
        return f"'{quoted(self.name)}'={self.value:.6g}{self.unit};{';'.join(fields)}".rstrip(";")


def parse_limits(text: str) -> Limits:
    """`90%`, `80:90`. ValueError for anything else."""
    numbers = [float(each.rstrip("%")) for each in text.split(":")]
    warning, critical = [None, *numbers][-2:] if len(numbers) in (1, 2) else (None, -1.0)
    if critical is None or not 0 <= critical < float("inf"):
        raise ValueError(text)
    if warning is not None and not 0 <= warning <= critical:
        raise ValueError(text)
    return Limits(warning, critical)


def limits(text: str) -> str:
    """A callback: the text, once it is known to be limits."""
    try:
        if text:
            parse_limits(text)
    except ValueError:
        raise Expected(f"use {LIMITS}, such as 90% or 80%:90%") from None
    return text


def disk_limits(given: Optional[list[str]]) -> Optional[list[str]]:
    """A callback: limits by mount point."""
    for text in pairs(given or [], "PATH=LIMITS", "--disk").values():
        limits(text)
    return given


@command(LOOK, usage_status=State.UNKNOWN)
def check(
    context: typer.Context,
    disk: Optional[list[str]] = typer.Option(
        None,
        metavar="PATH=LIMITS",
        callback=disk_limits,
        help="How full the filesystem that is mounted there may be. May be repeated.",
    ),
    memory: str = typer.Option(
        "", metavar="LIMITS", callback=limits, help="How much of the memory programs may use."
    ),
    swap: str = typer.Option(
        "", metavar="LIMITS", callback=limits, help="How much of the swap space may be in use."
    ),
    load: str = typer.Option(
        "", metavar="LIMITS", callback=limits, help="How high the load of the last minute may be."
    ),
    agent: bool = typer.Option(
        False, "--agent", help="An agent that does not answer is CRITICAL, not UNKNOWN."
    ),
) -> None:
    """Check a guest for Nagios, Icinga, Checkmk and the like.

    Prints one line with performance data, and exits with 0 (OK), 1 (WARNING), 2 (CRITICAL) or 3
    (UNKNOWN). LIMITS are CRITICAL or WARNING:CRITICAL: 90%, 80%:90%, 4:8. Without them qgactl
    only checks whether the agent answers. A filesystem that is not mounted is CRITICAL. What the
    guest's agent does not report is UNKNOWN.

    \b
    Examples:
      qgactl check web --agent
      qgactl check web --disk /=80%:90% --disk /srv=95% --memory 90% --load 4:8
    """
    settings: Settings = context.obj
    wanted = {
        name: parse_limits(text)
        for name, text in (("memory", memory), ("swap", swap), ("load", load))
        if text
    }
    disks = {path: parse_limits(text) for path, text in pairs(disk or []).items()}
    results = looked_at(settings, wanted, disks, State.CRITICAL if agent else State.UNKNOWN)
    worst = min((each.state for each in results), key=SEVERITY.index)
    if settings.structured:
        settings.print(as_object(settings.guest, worst, results))
    else:
        print(line_of(settings.guest, worst, results))
    raise typer.Exit(worst)


def looked_at(
    settings: Settings, wanted: dict[str, Limits], disks: dict[str, Limits], silent: State
) -> list[Result]:
    """Results of all checks; `silent`: the state of an agent that does not answer."""
    begin = time.monotonic()
    try:
        with settings.agent() as agent:
            seconds = time.monotonic() - begin
            readings = read_metrics(agent, settings.timeout) if wanted or disks else {}
    except GuestFrozen as error:  # an agent that says so has answered
        return [Result("agent", State.UNKNOWN, f"frozen{since(error.seconds)}")]
    except AgentError as error:
        return [Result("agent", silent, str(error))]
    now = usage({}, readings, 1.0)
    return [
        *(result for name, each in wanted.items() for result in figures(now, name, each)),
        *(disk_result(now, path, each) for path, each in disks.items()),
        Result("answer", State.OK, f"the agent answered after {seconds:.3f} s", seconds, "s"),
    ]


def figures(now: Usage, name: str, limits: Limits) -> Iterator[Result]:
    if name == "load":
        if now.load is None:
            yield unknown(name)
        else:
            yield Result(name, limits.state(now.load), f"load {now.load:.2f}", now.load, "", limits)
    elif name == "swap" and now.swap and not now.swap.total:
        yield Result(name, State.OK, "no swap space")
    else:
        level = now.memory if name == "memory" else now.swap
        yield share_result(name, level, limits) if level else unknown(name)


def disk_result(now: Usage, path: str, limits: Limits) -> Result:
    level = now.filesystems.get(path)
    if level is None:
        return Result(path, State.CRITICAL, f"no filesystem is mounted at {path}")
    return share_result(path, level, limits)


def share_result(name: str, level: Level, limits: Limits) -> Result:
    share = level.share * 100
    return Result(name, limits.state(share), f"{name} {share:.1f}%", share, "%", limits)


def unknown(name: str) -> Result:
    return Result(name, State.UNKNOWN, f"the agent does not report {name}")


def line_of(guest: str, worst: State, results: list[Result]) -> str:
    """`STATE - guest: texts | figures`, the worst first."""
    ordered = sorted(results, key=lambda each: SEVERITY.index(each.state))
    texts = "; ".join(each.text for each in ordered).removeprefix(f"{guest}: ")
    figures = " ".join(filter(None, (each.figure for each in results)))
    # Figures begin at the first bar.
    text = f"{worst.name} - {guest}: {texts}".replace("|", "/")
    return display.printable(f"{text} | {figures}" if figures else text)


def quoted(name: str) -> str:
    """A label of performance data, in which a quote is doubled and = is not allowed."""
    return name.replace("'", "''").replace("=", "_")


def as_object(guest: str, worst: State, results: list[Result]) -> dict[str, Any]:
    return {
        "guest": guest,
        "state": worst.name,
        "checks": [
            {
                "name": each.name,
                "state": each.state.name,
                "text": each.text,
                "value": each.value,
                "warning": each.limits.warning if each.limits else None,
                "critical": each.limits.critical if each.limits else None,
            }
            for each in results
        ],
    }
