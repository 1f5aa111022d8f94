"""The command `qgactl`: reports which of its libraries are not installed."""

from __future__ import annotations

import os
import signal
import sys

INTERRUPTED = 128 + signal.SIGINT

LIBRARIES = {"typer", "click", "rich"}


def main() -> None:
    """Run qgactl with the arguments of this process, and exit with its status."""
    interrupted = signal.getsignal(signal.SIGINT)
    if interrupted is signal.default_int_handler:
        # Python would print a traceback for ^C while the libraries load, and while it exits.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    open_closed_streams()
    if sys.argv[1:2] == ["--complete"]:
        from qga.ctl.complete import main as complete

        complete()
    try:
        from qga.ctl.cli import run
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in LIBRARIES:
            raise
        sys.exit(f"qgactl: needs the Python package '{library}': pip install 'qga[host]'")
    status = INTERRUPTED
    try:
        loading = signal.signal(signal.SIGINT, interrupted)
        status = run()
        signal.signal(signal.SIGINT, loading)
    except KeyboardInterrupt:  # before or after the command
        pass
    sys.exit(status)


def open_closed_streams() -> None:
    """Open /dev/null in place of standard streams that are closed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
