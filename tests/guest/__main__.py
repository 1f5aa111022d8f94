"""Boot a guest to try things in: see the docstring of the package."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .building import CannotBuildError, progress
from .vm import DATA_PORTS, ORIGINAL_PORT, SPARE_PORT, Guest, GuestError

INTERVAL = 10
"""Seconds between two lines of progress."""

NAME = "web"  # as in the examples of the documentation


@contextmanager
def sign_of_life() -> Iterator[None]:
    """Report progress every INTERVAL seconds, because building an image takes minutes."""
    done = threading.Event()

    def report() -> None:
        seconds = INTERVAL
        while not done.wait(INTERVAL):
            progress(f"still working ({seconds} s)")
            seconds += INTERVAL

    reporter = threading.Thread(target=report)
    reporter.start()
    try:
        yield
    finally:
        done.set()
        reporter.join()


def name_option(_folder: Path) -> list[str]:
    return ["-name", NAME]


def introduce(guest: Guest) -> None:
    """Print how to reach the guest, with the lines to paste last."""
    print(f"QEMU's own agent   {guest.channel_path(ORIGINAL_PORT)} (in use here)")
    print(f"spare port         {guest.channel_path(SPARE_PORT)} (not plugged in)")
    for port in DATA_PORTS:
        print(f"{port.name}     {guest.channel_path(port)}")
    print(f"ISA serial, ttyS1  {guest.isa_serial_path}")
    print(f"console log        {guest.console_log}")
    print("\nThe agent is running. In another terminal, paste these lines:\n")
    print(f"    export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH")
    print(f"    export QGA_CONNECT=unix:{guest.channel_path()}")
    print("    qgactl ping\n")
    print(f"The guest is called {NAME}, as in the documentation: `qgactl ping {NAME}` works, too.")
    print("Press ^C to stop the guest.", flush=True)


def main() -> int:
    argparse.ArgumentParser(prog="python -m tests.guest", description=__doc__).parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            with sign_of_life():
                guest = stack.enter_context(Guest(name_option))
            introduce(guest)
            guest.wait()
    except KeyboardInterrupt:
        return 0
    except (CannotBuildError, GuestError) as error:
        print(f"guest: {error}", file=sys.stderr)
        return 1
    print("guest: QEMU has exited by itself", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
