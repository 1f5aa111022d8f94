"""Build the packages once for all tests of a process."""

from __future__ import annotations

import fcntl
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).parent.parent.parent


class Packages(NamedTuple):
    """The agent's package, and that of qgactl."""

    agent: Path
    client: Path


@cache
def debs() -> Packages:
    return _build("build-deb")


@cache
def rpms() -> Packages:
    return _build("build-rpm")


def output(*argv: str | Path, **options: str) -> str:
    """Run a program that must succeed; return its standard output."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def _build(script: str) -> Packages:
    folder = CHECKOUT / "build"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:  # the processes of a run build in the same directory
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = output(CHECKOUT / "packaging" / script).split()
    paths = {Path(name).name.partition("-")[0].partition("_")[0]: CHECKOUT / name for name in made}
    return Packages(paths["qga"], paths["qgactl"])
