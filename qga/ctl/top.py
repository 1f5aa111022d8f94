"""What guests are doing, continuously."""

import os
import signal
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple, Optional

import typer
from rich.live import Live

from qga.client.hosts.trust import LeftOut
from qga.client.monitoring.usage import Flow, Level, Monitor, Row
from qga.client.monitoring.watch import Watcher
from qga.ctl import display, tables
from qga.ctl.app import FAILED, command, status_of
from qga.ctl.command import LOOK
from qga.ctl.guest_words import NOWHERE
from qga.ctl.settings import Output, Settings
from qga.ctl.targets import HELP, targets
from qga.ctl.terminal import changed, ended_in_order, restoring, undisturbed
from qga.ctl.top_view import Picture, Screen
from qga.ctl.units import seconds
from qga.ctl.values import finite_duration


@command(LOOK, NOWHERE)
def top(
    context: typer.Context,
    addresses: Optional[list[str]] = typer.Argument(None, metavar="[GUEST]...", help=HELP),
    interval: str = typer.Option(
        "1", metavar="DURATION", callback=finite_duration, help="Time between updates."
    ),
    count: int = typer.Option(
        0, metavar="N", min=0, help="Exit after N updates (0: run until interrupted)."
    ),
) -> None:
    """Watch processors, memory, network and disks of guests live.

    Press q to quit. A single guest is shown with each processor, disk and interface. A guest that
    does not answer is shown as silent. qgactl fails if no guest answers at the end of --count.
    JSON has one object per line, for each guest and update. Rates are in bytes per second.

    \b
    Examples:
      qgactl top
      qgactl top web db=unix:/run/db.sock --interval 5s
      qgactl top web --count 1 --json
    """
    settings: Settings = context.obj
    find = targets(settings, addresses or [])
    left_out = LeftOut()
    found = find(left_out)
    for line in left_out.lines():
        display.note(line)
    if not found:
        display.say("no running guest with an agent port was found; name one")
        raise typer.Exit(FAILED)
    monitor = Monitor(Watcher(lambda: find(LeftOut()), settings.timeout))
    pause = seconds(interval)
    pace = Pace(pause, min(pause, settings.timeout), count)
    try:
        with ended_in_order():
            rows = show_rows(settings, monitor, pace)
    except KeyboardInterrupt:
        return  # the usual way to quit
    if all(row.usage is None for row in rows):
        raise typer.Exit(max((status_of(row.cause) for row in rows if row.cause), default=FAILED))


def show_rows(settings: Settings, monitor: Monitor, pace: "Pace") -> list[Row]:
    """Returns the last rows."""
    if sys.stdout.isatty() and not settings.structured:
        return show_live(monitor, pace)
    show = partial(print_objects, settings) if settings.structured else write_picture
    return show_each(monitor, pace, show)


class Pace(NamedTuple):
    """Seconds between updates, seconds to wait for replies, and number of updates (0: no end)."""

    interval: float
    patience: float
    pictures: int


def pictures(monitor: Monitor, pace: Pace) -> Iterator[list[Row]]:
    """The rows of each update. Rates need two readings.

    If there is a last update, each guest has its whole timeout for the first reading, because an
    agent imports psutil for the first reply.
    """
    monitor.look(None if pace.pictures else pace.patience)
    due, shown = time.monotonic(), 0
    while not pace.pictures or shown < pace.pictures:
        due = max(due + pace.interval, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
        yield monitor.look(pace.patience)
        shown += 1


def show_each(monitor: Monitor, pace: Pace, show: Callable[[list[Row]], None]) -> list[Row]:
    """Returns the last rows."""
    rows: list[Row] = []
    for rows in pictures(monitor, pace):
        show(rows)
    return rows


def print_objects(settings: Settings, rows: list[Row]) -> None:
    """JSON: an object on a line for each guest. YAML: a document."""
    for row in rows:
        if settings.output is Output.YAML:
            print("---")
        settings.print(as_object(row))
    sys.stdout.flush()


def write_picture(rows: list[Row]) -> None:
    """In a pipe nothing is cut."""
    console = tables.console(width=tables.UNLIMITED)
    with console.capture() as lines:
        console.print(Picture(rows))
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in lines.get().splitlines()))
    sys.stdout.flush()


def show_live(monitor: Monitor, pace: Pace) -> list[Row]:
    console = tables.console()
    keys = "q quit" if sys.stdin.isatty() else "^C quit"
    footer = f"{keys}   updated every {pace.interval:g} s"
    # rich would redraw four times a second by itself.
    live = Live(console=console, screen=True, auto_refresh=False)
    with drawing(live):
        rows = monitor.look(pace.patience)
        draw(live, Screen(rows, footer))
        for rows in pictures(monitor, pace):
            draw(live, Screen(rows, footer))
    return rows


def draw(live: Live, screen: Screen) -> None:
    with undisturbed():
        live.update(screen, refresh=True)


@contextmanager
def drawing(live: Live) -> Iterator[None]:
    """Fill the terminal, and treat the key q as ^C."""
    start = partial(live.start, refresh=True)
    if not sys.stdin.isatty():
        with changed(start, live.stop):
            yield
        return
    fd = sys.stdin.fileno()
    with changed(partial(tty.setcbreak, fd), restoring(fd)), changed(start, live.stop):
        # read(2) cannot be given up, so the thread dies with the process.
        threading.Thread(target=wait_for_q, args=(fd,), daemon=True).start()
        yield


def wait_for_q(fd: int) -> None:
    with suppress(OSError):  # the terminal has gone
        while (key := os.read(fd, 1)) not in (b"q", b"Q"):
            if not key:
                return
    # It interrupts the sleep between two updates.
    os.kill(os.getpid(), signal.SIGINT)


def as_object(row: Row) -> dict[str, Any]:
    """A guest for --json."""
    if row.usage is None:
        return {"guest": row.name, "error": row.error}
    usage = row.usage
    known = {
        "cpu-percent": percent(usage.cpu),
        "load1m": usage.load,
        "memory": level(usage.memory),
        "swap": level(usage.swap),
        "processes": usage.processes,
        "uptime-seconds": usage.uptime,
    }
    return {
        "guest": row.name,
        **{name: value for name, value in known.items() if value is not None},
        "cpus-percent": {number: percent(share) for number, share in usage.cpus.items()},
        "network": {name: flow("rx", "tx", each) for name, each in usage.network.items()},
        "disks": {name: flow("read", "write", each) for name, each in usage.disks.items()},
        "filesystems": {place: level(each) for place, each in usage.filesystems.items()},
    }


def percent(share: Optional[float]) -> Optional[float]:
    return None if share is None else round(share * 100, 1)


def level(of: Optional[Level]) -> Optional[dict[str, int]]:
    return None if of is None else {"used-bytes": int(of.used), "total-bytes": int(of.total)}


def flow(incoming: str, outgoing: str, of: Flow) -> dict[str, int]:
    return {f"{incoming}-bytes": round(of.incoming), f"{outgoing}-bytes": round(of.outgoing)}
