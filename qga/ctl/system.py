"""The guest's system, users and clock."""

import time as host
from datetime import datetime
from typing import NamedTuple

import typer

from qga.client.agent import GuestAgent
from qga.client.results import OSInfo, Timezone, User
from qga.ctl.app import answer, command
from qga.ctl.command import LOOK
from qga.ctl.guest_words import Line, Surroundings, WrongWords, first_word
from qga.ctl.tables import show_facts, show_table
from qga.ctl.units import distance, moment

SECOND = 10**9  # nanoseconds


class Machine(NamedTuple):
    host_name: str
    os: OSInfo
    timezone: Timezone


class Clock(NamedTuple):
    """The guest's time in nanoseconds since 1970, and by how much it is ahead, in seconds."""

    time: int
    ahead: float
    timezone: Timezone


@command(LOOK, name="os")
def system(context: typer.Context) -> None:
    """Show the host name, operating system, kernel and time zone.

    \b
    Examples:
      qgactl os web
      qgactl os web --json
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


@command(LOOK)
def users(context: typer.Context) -> None:
    """List the users who are logged in.

    Login times are in this host's time zone.

    \b
    Examples:
      qgactl users web
    """
    answer(context, GuestAgent.users, show_users)


def show_users(people: list[User]) -> None:
    rows = ((user.user, moment(user.login_time), user.domain) for user in people)
    show_table(("User", "Since", "Domain"), rows)


def is_time(words: list[str], line: Line, surroundings: Surroundings) -> bool:
    """Whether a single word is a time to set; after --set it must not pass for one by mistake."""
    if len(words) > 1:
        return False
    try:
        parse_time(words[0])
    except typer.BadParameter as error:
        if line.has("--set") and not surroundings.is_guest(words[0]):
            raise WrongWords(f"{error.message}, or name a guest") from None
        return False
    return True


@command(LOOK, first_word("GUEST [--set [TIME]]", is_time))
def time(
    context: typer.Context,
    moment: str = typer.Argument(
        "", metavar="TIME", help="With --set: the time to set (default: this host's)."
    ),
    change: bool = typer.Option(False, "--set", help="Set the clock."),
) -> None:
    """Show or set the guest's clock.

    TIME is a time such as 2026-11-22T18:30, followed by Z or an offset such as +01:00 if it is
    not in this host's time zone; seconds since 1970 after @; or rtc for the time of the guest's
    hardware clock. --set without a TIME uses this host's time.

    \b
    Examples:
      qgactl time web
      qgactl time web --set
      qgactl time web --set 2026-11-22T18:30:00Z
      qgactl time web --set rtc
    """
    if moment and not change:
        raise typer.BadParameter(f"to set the clock to {moment}, add --set")
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
        # Python before 3.11 does not accept Z.
        when = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone()
        return round(when.timestamp() * SECOND)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"invalid time '{text}'; use e.g. 2026-11-22T18:30, @1795372200, or rtc"
        ) from None


def read_clock(agent: GuestAgent) -> Clock:
    ahead = agent.time_ahead()
    return Clock(host.time_ns() + round(ahead * SECOND), ahead, agent.timezone())


def show_clock(clock: Clock) -> None:
    show_facts(
        [
            ("Guest clock", moment(clock.time / SECOND)),
            ("Difference", difference(clock.ahead)),
            ("Time zone", zone(clock.timezone)),
        ]
    )


def difference(ahead: float) -> str:
    """`0.012 s ahead of the host's`."""
    return f"{abs(ahead):.3f} s {'ahead of' if ahead >= 0 else 'behind'} the host's"
