"""The guest's processors and their load."""

import typer

from qga.client.agent import GuestAgent
from qga.client.results import LoadAverage, Processor, ProcessorTimes
from qga.ctl.app import FAILED, JSON, Settings, answer, app, faults
from qga.ctl.display import say
from qga.ctl.tables import Row, show_facts, show_table, yes
from qga.ctl.units import percent

SHARES = ("User", "System", "I/O wait", "Steal", "Idle")

MOST = 1 << 16  # processors: more than any kernel has


@app.command()
def cpu(context: typer.Context, as_json: bool = JSON) -> None:
    """Show what the guest's processors have done since its start, in percent of their time.

    JSON has milliseconds. User has in it what ran at low priority and what guests of the guest
    took, system what interrupts took; steal is what the host did not give.

    \b
    Examples:
      qgactl cpu
      qgactl cpu --json
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


@app.command()
def load(context: typer.Context, as_json: bool = JSON) -> None:
    """Show the guest's load averages: how many processes wanted to run.

    \b
    Examples:
      qgactl load
    """
    answer(context, GuestAgent.load, show_load)


def show_load(load: LoadAverage) -> None:
    spans = zip(("1 minute", "5 minutes", "15 minutes"), load)
    show_facts((f"Load over {span}", f"{value:.2f}") for span, value in spans)


@app.command()
def vcpus(
    context: typer.Context,
    online: str = typer.Option("", metavar="CPUS", help="Bring these online, as in 1,3-5."),
    offline: str = typer.Option("", metavar="CPUS", help="Take these offline likewise."),
    as_json: bool = JSON,
) -> None:
    """Show the guest's processors, after taking some online or offline.

    \b
    Examples:
      qgactl vcpus
      qgactl vcpus --offline 2-3
      qgactl vcpus --online 2,3
    """
    wishes = {**dict.fromkeys(numbers(online), True), **dict.fromkeys(numbers(offline), False)}
    if len(wishes) < len(numbers(online)) + len(numbers(offline)):
        raise typer.BadParameter("a processor cannot be taken online and offline at once")
    if wishes:
        settings: Settings = context.obj
        with faults(), settings.agent() as agent:
            done = agent.set_processors(wishes)
        if done < len(wishes):
            failed = list(wishes)[max(done, 0)]
            say(f"processor {failed} could not be taken {state(wishes[failed])}: see below")
            answer(context, GuestAgent.processors, show_processors)
            raise typer.Exit(FAILED)
    answer(context, GuestAgent.processors, show_processors)


def numbers(text: str) -> set[int]:
    """1,3-5 as numbers."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash) and len(part) < 12):
            raise typer.BadParameter(f"'{part}' is no number of a processor, nor a range as 3-5")
        found.update(range(int(first), min(int(last or first), MOST) + 1))
    return found


def show_processors(processors: list[Processor]) -> None:
    rows = (
        (str(each.logical_id), state(each.online), yes(each.can_offline)) for each in processors
    )
    show_table(("CPU", "State", "May go offline"), rows, right=("CPU",))


def state(online: bool) -> str:
    return "online" if online else "offline"
