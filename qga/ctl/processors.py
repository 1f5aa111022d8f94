"""The guest's processors and their load."""

import typer

from qga.client.agent import GuestAgent
from qga.client.results import LoadAverage, Processor, ProcessorTimes
from qga.ctl.app import FAILED, answer, command, faults
from qga.ctl.command import ADVANCED, LOOK
from qga.ctl.display import say
from qga.ctl.settings import Settings
from qga.ctl.tables import Row, show_facts, show_table, yes
from qga.ctl.units import percent

SHARES = ("User", "System", "I/O wait", "Steal", "Idle")

MOST = 1 << 16  # processors: more than any kernel has


@command(LOOK)
def cpu(context: typer.Context) -> None:
    """Show how the processors have spent their time since the boot.

    "User" includes nice and guest time, "system" includes interrupts, and "steal" is time that
    the host gave to others. The table shows percentages, JSON and YAML milliseconds.

    \b
    Examples:
      qgactl cpu web
      qgactl cpu web --json
    """
    answer(context, GuestAgent.processor_times, show_times)


def show_times(processors: list[ProcessorTimes]) -> None:
    show_table(("CPU", *SHARES), map(times_row, processors), right=("CPU", *SHARES))


def times_row(times: ProcessorTimes) -> Row:
    shares = (
        times.user + times.nice,
        times.system + (times.irq or 0) + (times.softirq or 0),
        times.iowait or 0,
        times.steal or 0,
        times.idle,
    )
    return (str(times.cpu), *(percent(share, sum(shares)) for share in shares))


@command(LOOK)
def load(context: typer.Context) -> None:
    """Show the load averages over 1, 5 and 15 minutes.

    \b
    Examples:
      qgactl load web
    """
    answer(context, GuestAgent.load, show_load)


def show_load(load: LoadAverage) -> None:
    spans = zip(("1 minute", "5 minutes", "15 minutes"), load)
    show_facts((f"Load over {span}", f"{value:.2f}") for span, value in spans)


@command(ADVANCED)
def vcpus(
    context: typer.Context,
    online: str = typer.Option(
        "", metavar="CPUS", help="Processors to bring online, such as 1,3-5."
    ),
    offline: str = typer.Option("", metavar="CPUS", help="Processors to take offline."),
) -> None:
    """List the processors, or take some of them online or offline.

    \b
    Examples:
      qgactl vcpus web
      qgactl vcpus web --offline 2-3
      qgactl vcpus web --online 2,3
    """
    wishes = {**dict.fromkeys(numbers(online), True), **dict.fromkeys(numbers(offline), False)}
    if len(wishes) < len(numbers(online)) + len(numbers(offline)):
        raise typer.BadParameter("a processor cannot be taken online and offline at the same time")
    if wishes:
        settings: Settings = context.obj
        with faults(), settings.agent() as agent:
            done = agent.set_processors(wishes)
        if done < len(wishes):
            failed = list(wishes)[max(done, 0)]
            say(f"processor {failed} could not be taken {state(wishes[failed])}")
            answer(context, GuestAgent.processors, show_processors)
            raise typer.Exit(FAILED)
    answer(context, GuestAgent.processors, show_processors)


def numbers(text: str) -> set[int]:
    """The numbers in 1,3-5."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, dash, last = part.partition("-")
        # The length keeps int() from numbers with millions of digits.
        if not (first.isdecimal() and (last.isdecimal() or not dash) and len(part) < 12):
            raise typer.BadParameter(
                f"invalid processor '{part}'; use a number or a range such as 3-5"
            )
        if int(last or first) < int(first):
            raise typer.BadParameter(f"invalid range '{part}'; the lower number comes first")
        found.update(range(int(first), min(int(last or first), MOST) + 1))
    return found


def show_processors(processors: list[Processor]) -> None:
    # The kernel lists them in no particular order.
    rows = (
        (str(each.logical_id), state(each.online), yes(each.can_offline))
        for each in sorted(processors, key=lambda each: each.logical_id)
    )
    show_table(("CPU", "State", "Can go offline"), rows, right=("CPU",))


def state(online: bool) -> str:
    return "online" if online else "offline"
