"""Runs qgactl as a separate process, as a user does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

QGACTL = [sys.executable, "-c", "from qga.ctl.main import main; main()"]
SLOW = ("--timeout", "60")
"""Options for a guest whose processor is emulated."""
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""With these users and systems end a command."""
ON_A_TERMINAL = ["setsid", "--ctty"]
"""Goes before a command line, to make the terminal on its standard input its controlling one."""

Result = tuple[int, str, str]


def environment(address: str | None) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    fixed = {"COLUMNS": "80", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    return {**kept, **fixed, "QGA_CONNECT": address or ""}


def qgactl(
    *arguments: str, address: str | None = None, stdin: str = "", **variables: str
) -> Result:
    """Exit status, stdout and stderr. `variables` are added to the environment."""
    done = subprocess.run(
        [*QGACTL, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env={**environment(address), **variables},
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr
