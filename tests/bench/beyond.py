"""Measure what QEMU's agent has nothing of: programs, connections, events and vsock.

python -m tests.bench.beyond [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from tests.bench import events, forwarding, programs, vsock
from tests.bench.rounds import progress
from tests.guest.vsock import VsockGuest

RESULTS = Path(__file__).with_name("BEYOND.md")
PAGE = """\
# Measured beyond QEMU's agent

`make bench` makes this page. QEMU's agent has nothing of this, so the yardstick is ssh over QEMU's
user network. Everything was measured in one emulated guest ({date}).

## Programs

Medians of {rounds} runs in turn. A program's own time is that in the guest, without an agent.
Goals: as a user at most 1.5 times as long as root; the first byte at most 2 pings after the
program's own.

{programs}
## Connections

The data port carries a file; goal: 0.7 times its throughput.

{connections}
## Events

Times by the guest's clock. Goals: 200 ms; no context switch.

{events}
## vsock and virtio-serial

One agent serves both, vsock by vhost-device-vsock. Medians of {turns} rounds.

{vsock}"""


def measure(rounds: int, count: int, size: vsock.Size, idle_seconds: float) -> str:
    """The page. rounds: of programs. count: MiB for each connection."""
    with VsockGuest() as guest:
        progress("programs")
        of_programs = programs.table(programs.measure(guest, rounds))
        progress("connections")
        of_connections = forwarding.table(forwarding.measure(guest, 10 * rounds, count))
        progress("events")
        of_events = events.table(events.measure(guest, idle_seconds))
        progress("vsock")
        of_vsock = vsock.table(vsock.measure(guest, size))
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return PAGE.format(
        date=date,
        rounds=rounds,
        programs=of_programs,
        connections=of_connections,
        events=of_events,
        turns=size.rounds,
        vsock=of_vsock,
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.beyond", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="of each program")
    options = parser.parse_args(argv)
    os.environ.pop("SSH_AUTH_SOCK", None)  # an agent's keys would be tried first
    page = measure(options.rounds, 16, vsock.Size(), 10)
    RESULTS.write_text(page)
    print(page, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
