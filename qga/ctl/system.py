"""What the guest is: its system, its users, its clock."""

import time as host
from datetime import datetime
from typing import NamedTuple

import typer

from qga.client.agent import GuestAgent
from qga.client.results import OSInfo, Timezone, User
from qga.ctl.app import JSON, answer, app
from qga.ctl.tables import show_facts, show_table
from qga.ctl.units import distance, moment

SECOND = 10**9  # nanoseconds


class Machine(NamedTuple):
    host_name: str
    os: OSInfo
    timezone: Timezone


class Clock(NamedTuple):
    """The guest's time in nanoseconds since 1970, and by how many seconds ours is behind it."""

    time: int
    ahead: float
    timezone: Timezone


@app.command(name="os")
def system(context: typer.Context, as_json: bool = JSON) -> None:
    """Show the guest's name, operating system, kernel and time zone.

    \b
    Examples:
      qgactl os
      qgactl os --json
    """
    answer(context, lambda a: Machine(a.hostname(), a.osinfo(), a.timezone()), show_machine)


def show_machine(machine: Machine) -> None:
    system = machine.os
    show_facts(
        [
            ("Host name", machine.host_name),
            ("System", system.pretty_name or system.name),
            ("Variant", system.variant),
            ("Kernel", system.kernel_release),
            ("Kernel version", system.kernel_version),
            ("Machine", system.machine),
            ("Time zone", zone(machine.timezone)),
        ]
    )


def zone(timezone: Timezone) -> str:
    name = f" ({timezone.zone})" if timezone.zone else ""
    return f"UTC{distance(timezone.offset)}{name}"


@app.command()
def users(context: typer.Context, as_json: bool = JSON) -> None:
    """Show who is logged in to the guest, and since when, in this host's time.

    \b
    Examples:
      qgactl users
    """
    answer(context, GuestAgent.users, show_users)


def show_users(people: list[User]) -> None:
    rows = ((user.user, moment(user.login_time), user.domain) for user in people)
    show_table(("User", "Since", "Domain"), rows)


@app.command()
def time(
    context: typer.Context,
    moment: str = typer.Argument("", metavar="TIME", help="What to set it to."),
    change: bool = typer.Option(False, "--set", help="Set it, instead of only showing it."),
    as_json: bool = JSON,
) -> None:
    """Show the guest's clock, or set it: without a TIME to this host's time.

    TIME is as 2026-11-22T18:30, with +01:00 or Z behind it if it is not this host's zone, or
    seconds since 1970 behind a @, or the word rtc for the time of the guest's hardware clock.

    \b
    Examples:
      qgactl time
      qgactl time --set
      qgactl time --set 2026-11-22T18:30:00Z
      qgactl time --set rtc
    """
    if moment and not change:
        raise typer.BadParameter("a TIME is only for --set")
    wish = parse_time(moment)

    def clock(agent: GuestAgent) -> Clock:
        if change:
            agent.set_time(host.time_ns() if wish == NOW else wish)
        return read_clock(agent)

    answer(context, clock, show_clock)


NOW = -1


def parse_time(text: str) -> "int | None":
    """Nanoseconds since 1970; None for the hardware clock."""
    if not text:
        return NOW
    if text == "rtc":
        return None
    try:
        if text.startswith("@"):
            return int(float(text[1:]) * SECOND)
        when = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone()
        return round(when.timestamp() * SECOND)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"'{text}' is no time such as 2026-11-22T18:30, @1795372200 or rtc"
        ) from None


def read_clock(agent: GuestAgent) -> Clock:
    """The guest has read its clock halfway between question and answer, as near as we know."""
    before = host.time_ns()
    time = agent.time()
    after = host.time_ns()
    return Clock(time, (time - (before + after) // 2) / SECOND, agent.timezone())


def show_clock(clock: Clock) -> None:
    direction = "ahead of" if clock.ahead >= 0 else "behind"
    show_facts(
        [
            ("Guest's clock", moment(clock.time / SECOND)),
            ("Difference", f"{abs(clock.ahead):.3f} s {direction} this host's"),
            ("Time zone", zone(clock.timezone)),
        ]
    )
