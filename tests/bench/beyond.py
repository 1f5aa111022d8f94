"""Measure what QEMU's agent has nothing of: programs, connections, events and vsock.

python -m tests.bench.beyond [--rounds N] [--only SECTION]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Optional

from tests.bench import events, forwarding, programs, vsock
from tests.bench.rounds import progress
from tests.guest.machines import MEASURED, PARALLEL
from tests.guest.vm import Guest
from tests.guest.vsock import VsockGuest

SIZE = vsock.Size()
RESULTS = Path(__file__).with_name("BEYOND.md")
PAGE = """\
# Measured beyond QEMU's agent

`make bench` makes this page. QEMU's agent has nothing of this, so the yardstick is ssh over QEMU's
user network. Everything was measured in two emulated guests ({date}).

## Programs

Medians of {rounds} runs in turn, in a guest whose two processors run at the same time. A program's
own time is what it takes there if a process that does nothing else starts it by fork and exec.
QEMU's agent returns the output when the program has ended. Goals: as a user at most 1.5 times as
long as root; the first byte at most 2 pings after the program's own.

{programs}
## Connections

Here and below one thread of QEMU runs both processors of the guest in turn. The data port carries a
file; goal: 0.7 times its throughput.

{connections}
## Events

Times by the guest's clock. Goals: 200 ms; no context switch.

{events}
## vsock and virtio-serial

One agent serves both, vsock by vhost-device-vsock. Medians of {turns} rounds.

{vsock}"""


def of_programs(rounds: int) -> str:
    with Guest(machine=PARALLEL) as guest:
        progress("programs")
        return programs.table(programs.measure(guest, rounds))


def of_connections(guest: VsockGuest, rounds: int) -> str:
    return forwarding.table(forwarding.measure(guest, 10 * rounds, 16))


def of_events(guest: VsockGuest, _rounds: int) -> str:
    return events.table(events.measure(guest, 10))


def of_vsock(guest: VsockGuest, _rounds: int) -> str:
    return vsock.table(vsock.measure(guest, SIZE))


OTHERS = {"connections": of_connections, "events": of_events, "vsock": of_vsock}
SECTIONS = ("programs", *OTHERS)


def measure(rounds: int, wanted: Collection[str]) -> dict[str, str]:
    """The tables of these sections. rounds: of programs."""
    found = {"programs": of_programs(rounds)} if "programs" in wanted else {}
    others = {name: take for name, take in OTHERS.items() if name in wanted}
    if others:
        with VsockGuest(machine=MEASURED) as guest:
            for name, take in others.items():
                progress(name)
                found[name] = take(guest, rounds)
    return found


def page(rounds: int) -> str:
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    found = measure(rounds, SECTIONS)
    return PAGE.format(date=date, rounds=rounds, turns=SIZE.rounds, **found)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.beyond", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="of each program")
    parser.add_argument("--only", choices=SECTIONS, help="measure and print only this, for a try")
    options = parser.parse_args(argv)
    os.environ.pop("SSH_AUTH_SOCK", None)  # an agent's keys would be tried first
    if options.only:
        print(measure(options.rounds, [options.only])[options.only], end="")
        return 0
    text = page(options.rounds)
    RESULTS.write_text(text)
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
