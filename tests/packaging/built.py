"""Build the packages once for all tests of a process."""

from __future__ import annotations

import fcntl
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).parent.parent.parent


class Packages(NamedTuple):
    """The packages of the agent, of qgactl, and of the page for Cockpit."""

    agent: Path
    client: Path
    page: Path


@cache
def debs() -> Packages:
    return _build("build-deb")


@cache
def rpms() -> Packages:
    return _build("build-rpm")


def loaded_by_the_page() -> set[str]:
    """The files that the page for Cockpit loads, as they are installed."""
    page = CHECKOUT / "cockpit"
    text = "".join(path.read_text() for path in (*page.glob("*.html"), *page.glob("*.js")))
    names = re.findall(r'(?:href|src|from)[= ]"(?:\./)?([\w./-]+)"', text)
    return {f"/usr/share/cockpit/qga/{name}" for name in names if not name.startswith("..")}


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
    return Packages(paths["qga"], paths["qgactl"], paths["cockpit"])
