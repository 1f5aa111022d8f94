"""The picture of `qgactl top`: a line for each guest, and the details of a single one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from qga.client.monitoring.usage import Flow, Level, Row, Usage, is_disk, is_link, total
from qga.ctl.display import printable
from qga.ctl.units import duration

UNKNOWN = "-"
WARM, HOT = 0.7, 0.9
LONGEST_NAME = 24
LONGEST_BAR = 50
GAP = 2  # between two columns
WIDENED = GAP - 1  # a column that is filled from the right; the table adds one between two
BARS, ASCII_BARS = "█░", "#."
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


class Column(NamedTuple):
    """A column of the table; the highest rank is left out first."""

    title: str
    width: int
    rank: int
    cell: Callable[[Usage], Text]


class Picture:
    """The guests, in the width of the terminal."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield overview(self.rows, options.max_width)
        for row in self.rows:
            if row.error:
                text = f"{printable(row.name)}: {printable(row.error)}"
                yield Text(text, "red", no_wrap=True, overflow="ellipsis")
        if len(self.rows) == 1 and self.rows[0].usage is not None:
            signs = ASCII_BARS if options.ascii_only else BARS
            yield from details(self.rows[0].usage, options.max_width, signs)


class Screen:
    """The picture with a line at the bottom, in the height of the terminal."""

    def __init__(self, rows: list[Row], footer: str) -> None:
        self.picture = Picture(rows)
        self.footer = footer

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = max((options.height or console.height) - 1, 0)
        lines = console.render_lines(self.picture, options.update(height=None), pad=False)[:room]
        for line in lines:
            yield from line
            yield Segment.line()
        yield Text("\n" * (room - len(lines)), end="")
        yield Text(self.footer, "dim", no_wrap=True, overflow="ellipsis", end="")


def overview(rows: list[Row], width: int) -> Table:
    """A line for each guest, with as many columns as fit."""
    longest = max((len(printable(row.name)) for row in rows), default=0)
    name_width = min(max(longest, len("Guest")), LONGEST_NAME, max(1, width))
    columns = fitting(width - name_width)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    table.add_column("Guest", width=name_width, no_wrap=True, overflow="ellipsis")
    for column in columns:
        table.add_column(column.title, width=column.width + WIDENED, justify="right", no_wrap=True)
    for row in rows:
        cells = [
            column.cell(row.usage) if row.usage else Text(UNKNOWN, "dim") for column in columns
        ]
        if row.usage is None and cells:
            cells[0] = Text("silent", "bold red")
        table.add_row(Text(printable(row.name), "bold"), *cells)
    return table


def fitting(room: int) -> list[Column]:
    """The most important columns that fit, in their order."""
    chosen = []
    for column in sorted(COLUMNS, key=lambda column: column.rank):
        if column.width + GAP > room:
            break
        room -= column.width + GAP
        chosen.append(column)
    return [column for column in COLUMNS if column in chosen]


def details(usage: Usage, width: int, signs: str) -> Iterator[Table | Text]:
    """Each processor, memory, swap space, filesystem, disk and network interface."""
    bars = [(f"cpu {number}", share, "") for number, share in usage.cpus.items()]
    for name, level in (("memory", usage.memory), ("swap", usage.swap)):
        if level is not None and level.total:
            bars.append((name, level.share, of(level)))
    bars += [(place, level.share, of(level)) for place, level in usage.filesystems.items()]
    if bars:
        yield Text()
        yield bar_table(bars, width, signs)
    flows = [
        ("Disk", "Read", "Written", usage.disks),
        ("Network", "Received", "Sent", usage.network),
    ]
    for title, incoming, outgoing, found in flows:
        if found:
            yield Text()
            yield flow_table(title, incoming, outgoing, found)


def bar_table(bars: list[tuple[str, float, str]], width: int, signs: str) -> Table:
    table = Table.grid(padding=(0, GAP, 0, 0))
    for _ in range(4):
        table.add_column(no_wrap=True, overflow="ellipsis")
    label = min(max(len(name) for name, _, _ in bars), LONGEST_NAME)
    note = max(len(text) for _, _, text in bars)
    room = width - label - note - len("100 %") - 3 * GAP
    for name, share, text in bars:
        shown = Text(printable(name), no_wrap=True, overflow="ellipsis")
        shown.truncate(LONGEST_NAME, overflow="ellipsis")
        table.add_row(
            shown, bar(share, min(room, LONGEST_BAR), signs), percent(share), Text(text, "dim")
        )
    return table


def flow_table(title: str, incoming: str, outgoing: str, flows: dict[str, Flow]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    table.add_column(title, max_width=LONGEST_NAME, no_wrap=True, overflow="ellipsis")
    for way in (incoming, outgoing):
        table.add_column(way, width=len("1023 KiB/s") + WIDENED, justify="right", no_wrap=True)
    for name, flow in flows.items():
        table.add_row(Text(printable(name)), rate(flow.incoming), rate(flow.outgoing))
    return table


def bar(share: float, width: int, signs: str) -> Text:
    full = round(min(1.0, share) * width)
    return Text(signs[0] * full, colour(share)) + Text(signs[1] * max(0, width - full), "dim")


def colour(share: float) -> str:
    return "red" if share >= HOT else "yellow" if share >= WARM else "green"


def percent(share: float | None) -> Text:
    if share is None:
        return Text(UNKNOWN, "dim")
    return Text(f"{share * 100:3.0f} %", colour(share))


def amount(count: float) -> str:
    """Bytes, with up to three digits."""
    unit = 0
    while count >= 1000 and unit < len(UNITS) - 1:
        count /= 1024
        unit += 1
    digits = 1 if unit and count < 10 else 0
    return f"{count:.{digits}f} {UNITS[unit]}"


def rate(count: float) -> Text:
    return Text(f"{amount(count)}/s", "dim" if count < 1 else "")


def of(level: Level) -> str:
    return f"{amount(level.used)} of {amount(level.total)}"


def _incoming(flow: Flow | None) -> Text:
    return rate(flow.incoming) if flow else Text(UNKNOWN, "dim")


def _outgoing(flow: Flow | None) -> Text:
    return rate(flow.outgoing) if flow else Text(UNKNOWN, "dim")


def _share(level: Level | None) -> Text:
    return percent(level.share if level and level.total else None)


def _fullest(usage: Usage) -> Text:
    if not usage.filesystems:
        return Text(UNKNOWN, "dim")
    place, level = max(usage.filesystems.items(), key=lambda entry: entry[1].share)
    shown = Text(printable(place))
    shown.truncate(12, overflow="ellipsis")
    return shown + " " + percent(level.share)


def _known(text: str | None) -> Text:
    return Text(UNKNOWN, "dim") if text is None else Text(text)


COLUMNS = (
    Column("CPU", 6, 0, lambda usage: percent(usage.cpu)),
    Column(
        "Load",
        5,
        6,
        lambda usage: _known(None if usage.load is None else f"{usage.load:.2f}"),
    ),
    Column("Memory", 6, 1, lambda usage: _share(usage.memory)),
    Column("Swap", 5, 8, lambda usage: _share(usage.swap)),
    Column("Received", 10, 2, lambda usage: _incoming(total(usage.network, is_link))),
    Column("Sent", 10, 3, lambda usage: _outgoing(total(usage.network, is_link))),
    Column("Read", 10, 4, lambda usage: _incoming(total(usage.disks, is_disk))),
    Column("Written", 10, 5, lambda usage: _outgoing(total(usage.disks, is_disk))),
    Column("Fullest", 18, 7, _fullest),
    Column(
        "Up",
        13,
        9,
        lambda usage: _known(None if usage.uptime is None else duration(usage.uptime)),
    ),
)
