"""What guests are doing, live."""

import os
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Optional

import typer
from rich.console import Console
from rich.live import Live

from qga.client.hosts.trust import LeftOut
from qga.client.monitoring.usage import Flow, Level, Monitor, Row
from qga.client.monitoring.watch import Watcher
from qga.ctl import display, tables
from qga.ctl.app import FAILED, JSON, Settings, app, finite, status_of
from qga.ctl.targets import HELP, targets
from qga.ctl.top_view import Picture


@app.command()
def top(
    context: typer.Context,
    addresses: Optional[list[str]] = typer.Argument(None, metavar="ADDRESS", help=HELP),
    interval: float = typer.Option(
        1.0, metavar="SECONDS", callback=finite, help="How long from one picture to the next."
    ),
    count: int = typer.Option(0, metavar="N", min=0, help="End after so many (0: never)."),
    as_json: bool = JSON,
) -> None:
    """Show what guests are doing: processors, memory, load, network and disks; q ends it.

    Of a single guest it shows each processor, disk and interface, too. A guest that does not
    answer is shown as silent; if none does by the end of --count, that is an error. With --json
    each guest is an object on a line of its own, and rates are bytes a second.

    \b
    Examples:
      qgactl top
      qgactl top web db=unix:/run/db.sock --interval 5
      qgactl --connect web top --count 1 --json
    """
    settings: Settings = context.obj
    find = targets(settings, addresses or [])
    left_out = LeftOut()
    found = find(left_out)
    for line in left_out.lines():
        display.say(line)
    if not found:
        display.say("no running guest with an agent's port was found; name one")
        raise typer.Exit(FAILED)
    monitor = Monitor(Watcher(lambda: find(LeftOut()), settings.timeout))
    pace = Pace(interval, min(interval, settings.timeout), count)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the terminal is put back
    try:
        if sys.stdout.isatty() and not settings.json:
            rows = show_live(monitor, pace)
        else:
            rows = show_each(monitor, pace, print_objects if settings.json else write_picture)
    except KeyboardInterrupt:
        return  # that is how it ends
    if all(row.usage is None for row in rows):
        raise typer.Exit(max((status_of(row.cause) for row in rows if row.cause), default=FAILED))


class Pace(NamedTuple):
    """How long from one picture to the next and each waits for answers; how many (0: for ever)."""

    interval: float
    patience: float
    pictures: int


def pictures(monitor: Monitor, pace: Pace) -> Iterator[list[Row]]:
    """What is to be shown; the first is from a while ago to now.

    Where there is a last one, each guest has its whole time for the first answer, without which
    there would be no rates: an agent loads what it needs for it when it is first asked.
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


def print_objects(rows: list[Row]) -> None:
    for row in rows:
        print(display.compact_json(as_object(row)), flush=True)


def write_picture(rows: list[Row]) -> None:
    """For a program that reads it: nothing is cut."""
    console = Console(width=tables.UNLIMITED, markup=False, highlight=False, emoji=False)
    with console.capture() as lines:
        console.print(Picture(rows))
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in lines.get().splitlines()))
    sys.stdout.flush()


def show_live(monitor: Monitor, pace: Pace) -> list[Row]:
    console = Console(markup=False, highlight=False, emoji=False)
    with end_on_q(), Live(console=console, screen=True, auto_refresh=False) as live:
        rows = monitor.look(pace.patience)
        live.update(Picture(rows), refresh=True)
        for rows in pictures(monitor, pace):
            live.update(Picture(rows), refresh=True)
    return rows


@contextmanager
def end_on_q() -> Iterator[None]:
    """Take the key q for ^C, without an Enter behind it; the terminal is put back at the end."""
    if not sys.stdin.isatty():
        yield
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        threading.Thread(target=wait_for_q, args=(fd,), daemon=True).start()
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def wait_for_q(fd: int) -> None:
    while (key := os.read(fd, 1)) not in (b"q", b"Q"):
        if not key:
            return
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
