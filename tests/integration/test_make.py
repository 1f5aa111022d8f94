"""The output of `make` while it installs, and its list of targets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.pages import CHECKOUT

VENV = CHECKOUT / "packaging/venv"


def install(directory: Path, **variables: str) -> tuple[int, list[str]]:
    """The exit status and output of packaging/venv; pip reads no configuration."""
    done = subprocess.run(
        [VENV, sys.executable, directory, "host"],
        cwd=CHECKOUT,
        env={**os.environ, "PIP_CONFIG_FILE": "/dev/null", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()


def test_an_installation_that_fails_shows_the_steps_and_the_cause(tmp_path: Path) -> None:
    status, lines = install(tmp_path / "a venv", PIP_NO_INDEX="1")
    assert status == 1
    assert lines[0].startswith(
        f"Creating the virtual environment {tmp_path / 'a venv'} with Python"
    )
    assert lines[1].startswith("Installing qga[host]")
    assert any("No matching distribution found for setuptools" in line for line in lines)
    assert lines[-1].startswith("pip could not install qga[host]")


def test_an_installation_that_succeeds_shows_only_the_steps(tmp_path: Path) -> None:
    """With a pip that only prints its arguments."""
    directory = tmp_path / "venv"
    python = directory / "bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho Collecting qga; echo WARNING: root >&2\n")
    python.chmod(0o755)
    assert install(directory) == (
        0,
        [f"Installing qga[host] into {directory} with pip (up to a minute)"],
    )


def test_a_download_that_fails_leaves_none_running(tmp_path: Path) -> None:
    """With downloads that do nothing, of which the first one fails."""
    functions, _, _ = (CHECKOUT / "packaging/prepare").read_text().partition("\npackages=\n")
    (tmp_path / "prepare").write_text(f"{functions}\nfetch\necho not reached\n")
    scripts = {
        "original": "[ $1 != bookworm ]",
        "vsock": "true",
        "program": f'sleep 0.5; touch {tmp_path}/"$2"',
    }
    for name, script in scripts.items():
        (tmp_path / f"fetch-{name}").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / f"fetch-{name}").chmod(0o755)
    done = subprocess.run(
        ["sh", tmp_path / "prepare"], stdout=subprocess.PIPE, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert (tmp_path / "prometheus").exists()
    assert (tmp_path / "zabbix-agent2").exists()


def test_help_lists_every_target() -> None:
    help_text = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (CHECKOUT / "Makefile").read_text(), re.M)
    assert phony
    assert re.findall(r"^  make (\w+) ", help_text, re.M) == phony[1].split()
    assert max(map(len, help_text.splitlines())) <= 80
