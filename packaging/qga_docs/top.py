"""docs/top.svg: `qgactl top` with made-up guests: the picture changes only with the code."""

from __future__ import annotations

import io

from rich.console import Console
from rich.text import Text

from qga.client.monitoring.usage import Flow, Level, Row, Usage
from qga.ctl.top_view import Picture

WIDTH = 104
KIB, MIB, GIB = 2**10, 2**20, 2**30

WEB = Usage(
    cpu=0.345,
    cpus={"0": 0.72, "1": 0.31, "2": 0.24, "3": 0.11},
    load=1.38,
    memory=Level(2.9 * GIB, 4 * GIB),
    swap=Level(96 * MIB, GIB),
    network={"lo": Flow(12 * KIB, 12 * KIB), "eth0": Flow(1.7 * MIB, 21.4 * MIB)},
    disks={"vda": Flow(310 * KIB, 2.2 * MIB), "vdb": Flow(0, 0)},
    filesystems={"/": Level(11.2 * GIB, 20 * GIB), "/srv": Level(92.5 * GIB, 100 * GIB)},
    processes=143,
    uptime=19 * 86400 + 5000,
)
DB = WEB._replace(
    cpu=0.93,
    load=7.05,
    memory=Level(14.6 * GIB, 16 * GIB),
    network={"eth0": Flow(5.3 * MIB, 8.8 * MIB)},
    disks={"vda": Flow(88.4 * MIB, 41.9 * MIB)},
    filesystems={"/var/lib/postgresql": Level(151 * GIB, 200 * GIB)},
    uptime=212 * 86400,
)
BUILD = WEB._replace(
    cpu=0.02,
    load=0.04,
    memory=Level(0.4 * GIB, 8 * GIB),
    swap=None,
    network={"eth0": Flow(230, 90)},
    disks={"vda": Flow(0, 4 * KIB)},
    filesystems={"/": Level(3.1 * GIB, 40 * GIB)},
    uptime=5 * 3600 + 720,
)
ROWS = [
    Row("web", WEB, ""),
    Row("db", DB, ""),
    Row("build", BUILD, ""),
    Row("old", None, "no answer within 1 s"),
]


def picture() -> Console:
    """What a terminal shows, recorded."""
    console = Console(
        record=True,
        width=WIDTH,
        height=25,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    for prompt, rows in (("qgactl top web db build old", ROWS), ("qgactl top web", ROWS[:1])):
        console.print(Text(f"$ {prompt}", "bold"), Picture(rows), "")
    return console


def svg() -> str:
    return picture().export_svg(title="qgactl top", unique_id="top")
