"""The soak's command line: rounds until the time is up, then a table of what happened."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.soak.chaos import ROUND, Soak, soaking, table

INTERRUPTED = 130  # the exit status of what Ctrl-C has ended, as a shell tells it


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    print(f"{options.seconds:.0f} s, --seed {options.seed}", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="qga-soak-") as folder,
        soaking(Path(folder), options.seed) as soak,
    ):
        interrupted = _go_on(soak, options.seconds)
        if soak.rounds:
            soak.judge()
        print(table(soak))
        print(f"most memory: {soak.agent.memory('VmHWM') / 1e6:.1f} MB")
    for fault in soak.faults:
        print(f"\n{fault}", file=sys.stderr)
    return 1 if soak.faults else INTERRUPTED if interrupted else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description="Good and bad clients at one agent. Ctrl-C ends it.",
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (%(default).0f)")
    parser.add_argument("--seed", type=int, help="the same seed has the clients do the same")
    options = parser.parse_args(argv)
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(2**31)
    return options


def _go_on(soak: Soak, seconds: float) -> bool:
    """Round after round, two at least, up to the first fault; whether Ctrl-C ended it."""
    end = time.monotonic() + seconds
    length = min(ROUND, seconds / 2)
    try:
        while not soak.faults and (len(soak.rounds) < 2 or time.monotonic() < end):
            figures = soak.round(length)
            print(
                f"round {len(soak.rounds)}: {sum(soak.answers.values())} answers so far, at rest "
                f"{figures.memory / 1e6:.1f} MB, {figures.descriptors} descriptors, "
                f"{figures.threads} threads",
                flush=True,
            )
    except KeyboardInterrupt:
        print()
        return True
    return False


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
