"""Waiting for a guest, and watching its events."""

import math
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Optional

import typer

from qga.client.conversion import plain
from qga.client.errors import AgentError, NotReady
from qga.client.waiting import Met, Report, parse
from qga.client.watching import Event
from qga.ctl import display
from qga.ctl.app import command, faults
from qga.ctl.command import LOOK
from qga.ctl.settings import Agent, Output, Settings
from qga.ctl.units import duration as rounded
from qga.ctl.units import moment, seconds
from qga.ctl.values import Expected, duration, finite_duration

WATCHED = ("address", "mount", "usage", "pressure", "oom", "session", "freeze")


def conditions(given: Optional[list[str]]) -> Optional[list[str]]:
    """A callback that validates conditions."""
    for text in given or []:
        try:
            parse(text)
        except ValueError as error:
            raise Expected(f"use {str(error).rpartition('expected: ')[2]}") from None
    return given


def kinds(given: Optional[list[str]]) -> Optional[list[str]]:
    """A callback that validates kinds of events."""
    if not set(given or []) <= set(WATCHED):
        raise Expected(f"use one of {', '.join(WATCHED)}")
    return given


def finite_or_none(text: str) -> str:
    """A callback for a duration that need not be given."""
    return finite_duration(text) if text else text


@command(LOOK)
def wait(
    context: typer.Context,
    wanted: Optional[list[str]] = typer.Option(
        None,
        "--for",
        metavar="CONDITION",
        callback=conditions,
        help="agent, boot, cloud-init, address, unit:NAME, port:NUMBER or file:PATH. May be "
        "repeated (default: agent).",
        show_default=False,
    ),
    timeout: str = typer.Option(
        "5m", metavar="DURATION", callback=duration, help="How long to wait for all of them."
    ),
) -> None:
    """Wait until a guest is ready.

    agent: it answers. boot: systemd has finished booting. cloud-init: it is done or disabled.
    address: there is one that is not link-local. unit:NAME: the systemd unit is active.
    port:NUMBER: a program listens on this TCP port. file:PATH: it exists. The guest need not run
    yet. A condition counts as met once it was seen; those that are not met are reported.

    This also works with QEMU's agent if it is allowed to open files and run programs. Exit
    status: 0 if all conditions are met, 4 after a timeout, 1 if a condition will never be met,
    because cloud-init has failed or the agent cannot check it.

    \b
    Examples:
      qgactl wait web
      qgactl wait web --for boot --for address --timeout 2m
      qgactl wait web --for unit:nginx.service --for port:443
      qgactl wait web --for cloud-init --json
    """
    settings: Settings = context.obj
    with faults(), closing(settings.agent()) as agent:
        try:
            met = agent.wait_for(*wanted or (), timeout=seconds(timeout), report=reporter(agent))
        except AgentError as error:
            error.address = agent.typed
            if settings.structured and isinstance(error, NotReady):
                settings.print(outcome(error.met, error.missing))
            raise
    if settings.structured:
        settings.print(outcome(met, {}))
    else:
        details = "; ".join(f"{each.condition}: {each.detail}" for each in met)
        display.confirm(f"{agent.typed} is ready after {rounded(last(met))}: {details}")


def reporter(agent: Agent) -> Report:
    earlier = before = ""

    def report(condition: str, reason: str) -> None:
        nonlocal earlier, before
        same = reason == before and condition != earlier  # such as that nothing answers
        shown = f"as for {earlier}" if same else reason
        display.note(f"{agent.typed}: waiting for {condition}: {shown}")
        if not same:
            earlier, before = condition, reason

    return report


def last(met: Sequence[Met]) -> float:
    return max(each.seconds for each in met)


def outcome(met: Sequence[Met], missing: dict[str, str]) -> dict[str, Any]:
    """Each condition for JSON: whether it is met, and its last state."""
    seen = [{**plain(each), "met": True} for each in met]
    seen += [{"condition": text, "detail": why, "met": False} for text, why in missing.items()]
    return {"ready": not missing, "conditions": seen}


@command(LOOK)
def watch(
    context: typer.Context,
    wanted: Optional[list[str]] = typer.Option(
        None,
        "--event",
        metavar="KIND",
        callback=kinds,
        help="address, mount, usage, pressure, oom, session or freeze. May be repeated (default: "
        "all, usage only with --usage-interval).",
        show_default=False,
    ),
    usage_interval: str = typer.Option(
        "",
        "--usage-interval",
        metavar="DURATION",
        callback=finite_or_none,
        help="Check the usage of filesystems at this interval, 10s or longer.",
        show_default=False,
    ),
    usage_percent: int = typer.Option(
        90,
        "--usage-percent",
        metavar="PERCENT",
        min=1,
        max=100,
        help="Report filesystems whose usage is at least this.",
    ),
    count: int = typer.Option(
        0, metavar="N", min=0, help="Exit after N events (0: run until interrupted)."
    ),
    check: str = typer.Option(
        "5m",
        metavar="DURATION",
        callback=duration,
        help="Check whether the agent still runs after this long without an event.",
    ),
) -> None:
    """Report a guest's events as they happen.

    address: IP addresses are added or removed. mount: filesystems are mounted, unmounted,
    read-only, or writable again. usage: filesystems are nearly full. pressure: programs wait for
    memory. oom: the kernel has killed a program for lack of memory. session: users log in or out.
    freeze: filesystems are frozen or thawed. Times are by the guest's clock.

    This needs qga in the guest and a free data port; see docs/readiness.md. The watch continues
    after a restart of the agent. If this end is too slow, dropped events are counted. With --json
    each event is an object on a line.

    \b
    Examples:
      qgactl watch web
      qgactl watch web --event address --count 1 --json
      qgactl watch web --usage-interval 1m --usage-percent 95
    """
    settings: Settings = context.obj
    interval = whole_seconds(usage_interval) if usage_interval else None
    ports = settings.ports
    with faults(), closing(settings.agent()) as agent:
        settings.require_guest()
        try:
            with agent.watch(
                *wanted or (),
                usage_interval=interval,
                usage_percent=usage_percent,
                ports=ports(),
                check=seconds(check),
            ) as events:
                for kind, reason in events.started.unavailable:
                    display.note(f"{agent.typed}: {kind} cannot be reported: {reason}")
                for number, event in enumerate(events, 1):
                    show(settings, event)
                    if number == count:
                        return
        except AgentError as error:
            error.address = agent.typed
            raise
        except KeyboardInterrupt:
            return  # the usual way to quit


def whole_seconds(text: str) -> int:
    return math.ceil(seconds(text))


def show(settings: Settings, event: Event) -> None:
    if settings.output is Output.YAML:
        print("---")
    if settings.structured:
        settings.print(event.as_line())
    else:
        print(display.printable(f"{moment(event.time)} {sentence(event)}"))
    sys.stdout.flush()


def sentence(event: Event) -> str:
    """`address added: 192.0.2.7/24 on eth0`."""
    details = dict(event.details)
    if event.name.startswith("address-"):
        details = {
            "": f"{details.pop('address', '?')}/{details.pop('prefix', '?')} on "
            f"{details.pop('interface', '?')}",
            **details,
        }
    words = ", ".join(f"{name} {value}".lstrip() for name, value in details.items())
    return f"{event.name.replace('-', ' ')}{': ' if words else ''}{words}"
