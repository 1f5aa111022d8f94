"""What pip knows of a qga that a package has installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.built import CHECKOUT


@pytest.fixture
def site(tmp_path: Path) -> Path:
    script = CHECKOUT / "packaging/dist_info.py"
    argv = [sys.executable, script, tmp_path / "site", "debian"]
    subprocess.run([*map(str, argv)], env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, check=True)
    return tmp_path / "site"


def pip(site: Path, *words: str) -> str:
    """What pip reports where nothing can be downloaded."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--no-input", *words],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_an_extra_is_installed(site: Path) -> None:
    """By name; that of an extra which qga does not have is reported."""
    told = pip(site, "install", "--dry-run", "--no-index", "qga[fast,none]")
    assert f"already satisfied: qga[fast,none] in {site}" in told, told
    assert "does not provide the extra 'none'" in told
    assert "does not provide the extra 'fast'" not in told
    assert "pybase64>=1.0" in told


def test_extras_of_some_versions_of_python_keep_their_condition(site: Path) -> None:
    (metadata,) = site.glob("qga-*.dist-info/METADATA")
    requirements = metadata.read_text().splitlines()
    condition = "(python_version < '3.11') and extra == \"host\""
    assert f"Requires-Dist: tomli>=1.1; {condition}" in requirements


def test_pip_knows_who_has_installed_it(site: Path) -> None:
    """It refers those to that package manager who try to remove it."""
    assert "Installer: debian" in pip(site, "show", "--verbose", "qga").splitlines()
