"""A locale that is not UTF-8, made for a test."""

from __future__ import annotations

import subprocess
from pathlib import Path

GERMAN = "de_DE.ISO-8859-1"


def make_german(folder: Path) -> None:
    """Compile the locale into the directory, to be used as LOCPATH."""
    argv = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(folder / GERMAN)]
    subprocess.run(argv, check=True, capture_output=True)
