"""The command `qgactl`: says what is missing where its libraries are not installed."""

from __future__ import annotations

import sys

LIBRARIES = {"typer", "click", "rich"}


def main() -> None:
    """Run qgactl with the arguments of this process, and exit with its status."""
    try:
        from qga.client.cli import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in LIBRARIES:
            raise
        sys.exit(f"qgactl: needs the Python package '{error.name}': pip install 'qga[host]'")
    sys.exit(run())
