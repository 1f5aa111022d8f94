"""`make dist`: the wheel and the sdist have everything, and the wheel works on its own."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from qga.version import __version__

from .built import CHECKOUT, output

pytestmark = pytest.mark.timeout(600)


class Dist(NamedTuple):
    sdist: set[str]
    wheel: zipfile.ZipFile
    report: str


@pytest.fixture(scope="module")
def dist() -> Iterator[Dist]:
    """What the two have, and what the check of the wheel has reported."""
    (CHECKOUT / "build").mkdir(exist_ok=True)
    with open(CHECKOUT / "build/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            [CHECKOUT / "packaging/build-dist"],
            env={**os.environ, "PYTHON": sys.executable},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    wheel, sdist = sorted(done.stdout.split())
    with tarfile.open(CHECKOUT / sdist) as archive, zipfile.ZipFile(CHECKOUT / wheel) as package:
        names = {each.name.partition("/")[2] for each in archive if each.isfile()}
        yield Dist(names, package, done.stderr)


def tracked(*folders: str) -> set[str]:
    """The files of the checkout, which git knows."""
    return set(output("git", "-C", CHECKOUT, "ls-files", *folders).split())


def test_the_names_have_the_version(dist: Dist) -> None:
    name = f"qga-{__version__}-py3-none-any.whl"
    assert dist.wheel.filename and Path(dist.wheel.filename).name == name


def test_the_sdist_has_the_sources(dist: Dist) -> None:
    sources = tracked("qga", "commands") | {"pyproject.toml", "README.md", "LICENSE"}
    assert sources - dist.sdist == set()


def test_the_wheel_has_every_module_and_nothing_else(dist: Dist) -> None:
    modules = tracked("qga") | {f"qga/{each}" for each in tracked("commands")}
    inside = {name for name in dist.wheel.namelist() if ".dist-info/" not in name}
    collections = {name for name in inside if name.startswith("ansible_collections/")}
    assert inside - collections == modules
    assert "qga/py.typed" in inside


def test_the_wheel_names_its_programs_and_its_license(dist: Dist) -> None:
    info = f"qga-{__version__}.dist-info"
    entries = dist.wheel.read(f"{info}/entry_points.txt").decode()
    assert "qemu-ga = qga.cli:main" in entries
    assert "qgactl = qga.ctl.main:main" in entries
    assert any(name.endswith("LICENSE") for name in dist.wheel.namelist() if info in name)


def test_it_was_installed_with_a_python_of_this_machine(dist: Dist) -> None:
    lines = [line for line in dist.report.splitlines() if line.startswith("installed with Python")]
    assert 1 <= len(lines) <= 2
    assert all("site-packages/qga/__init__.py" in line for line in lines)
