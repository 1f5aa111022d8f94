"""Measure the original agents and ours side by side, and say which goals are met."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from tests.bench import measures, performance
from tests.bench.agents import AgentError
from tests.bench.client import Refused, SilenceError
from tests.bench.rounds import Outcome, measure, progress
from tests.bench.table import render
from tests.guest.image import CannotBuildError
from tests.guest.vm import GuestError

RESULTS = Path(__file__).with_name("RESULTS.md")
NOTES = Path(__file__).with_name("NOTES.md")
"""Notes that explain figures, such as profiles for the goals that are hard to meet."""


def main(argv: Optional[Sequence[str]] = None) -> int:
    options = parse(argv)
    size = measures.QUICK if options.quick else measures.FULL
    if options.rounds is not None:
        size = size._replace(rounds=options.rounds)
    try:
        outcome = measure(size, options.python, with_guest=options.guest)
    except (AgentError, SilenceError, Refused, CannotBuildError, GuestError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    report = "\n".join((describe(outcome, size), render(outcome.rows), NOTES.read_text()))
    print(report, end="")
    if options.output is not None:
        options.output.write_text(report)
        if options.output == RESULTS and outcome.passages:
            performance.write(outcome.passages)
        progress(f"written to {options.output}")
    return 0


def parse(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--rounds", type=positive, metavar="N", help="how often each figure is measured"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a little of everything, and no guest: seconds"
    )
    parser.add_argument(
        "--guest",
        action=argparse.BooleanOptionalAction,
        help="measure in a virtual machine, too (default, unless --quick)",
    )
    parser.add_argument(
        "--python", default=sys.executable, help="the interpreter of our agent (default: this one)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help=f"where the table goes, too (default: {RESULTS.name} here, unless --quick)",
    )
    options = parser.parse_args(argv)
    if options.guest is None:
        options.guest = not options.quick
    if options.output is None and not options.quick:
        options.output = RESULTS
    return options


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is too few: 1 or more")
    return number


def describe(outcome: Outcome, size: measures.Size) -> str:
    original, older, ours, _simd = outcome.contestants
    explanation = textwrap.fill(
        "`make bench` makes this page: QEMU's agent and ours side by side on unix sockets, in turn "
        'for each figure, and where it says "in a guest" on virtio ports of one virtual machine. '
        f"Each number is the median of the rounds ({size.rounds}); a ratio is ours divided by the "
        "column of QEMU's agent before it. The goals are about the newest release. "
        "Round trips are timed one after the other on one connection: "
        f"{size.pings:,} pings (in the guest a quarter), and {size.calls} of each information "
        f"command (likewise) {size.turns} times a round, each time after {measures.WARM_UP} that "
        "do not count; outside the guest client and agent are kept on one processor, and for "
        "requests of 64 KiB, too. The original "
        "also sends each ping to syslog. Base64 is "
        "Python's own, as on Debian 12 and 13, unless it says SIMD: then it is that of pybase64. "
        f"The long request has {size.long_request / 1e6:g} MB; there were {size.mixed_requests:,} "
        f"mixed requests (measured once), {size.crowd_of_children} children at once and "
        f"{size.crowd_of_clients} clients at once. A copy over a data port is compared with the "
        "original's file read and write, the only ways it has. `qgactl cp` uses no data port here; "
        "Ansible's way, a request for each 64 KiB, was timed with "
        f"{size.copied_slowly / 1e6:g} MB and without libvirt. MB are 10\u2076 bytes.",
        width=100,
    )
    return f"""\
# Measured against the original agent

{explanation}

- 11.1: {original.version}
- 7.2: {older.version}
- ours: {ours.version}
- machine: {processor()}, {os.cpu_count()} processors, {memory() / 1e9:.0f} GB
- kernel: {platform.system()} {platform.release()}
- date: {time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}, within {outcome.seconds:.0f} s, at a
  load average of {os.getloadavg()[1]:.1f}
"""


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


if __name__ == "__main__":
    sys.exit(main())
