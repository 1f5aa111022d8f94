"""The blocks of the documentation that need no guest: the plugin and its test, what `make run`
prints, what the configuration of a page allows, and command lines of qgactl."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pages import CHECKOUT, Block, blocks, pages, shape, steps
from tests.unit.host_root import HostRoot
from tests.unit.test_documentation import commands

BLOCKS = [block for page in pages() for block in blocks(page)]
CONFIGURATION = "/etc/qemu/qemu-ga.conf"
WRONG_USAGE = 2


def environment(**variables: str) -> dict[str, str]:
    """The environment of a user who has the programs of this checkout in PATH."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C.UTF-8", **variables}


def run(command: str, folder: Path, **variables: str) -> str:
    """The output of a command, both streams."""
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    return done.stdout


def test_the_plugin_passes_its_test(tmp_path: Path) -> None:
    files = [block for block in blocks("docs/plugins.md") if block.file]
    assert len(files) == 2
    for block in files:
        path = tmp_path / block.file
        path.parent.mkdir(mode=0o755, exist_ok=True)
        path.write_text(block.text)
        path.chmod(0o644)
    output = run(f"{shlex.quote(sys.executable)} -m pytest -q -p no:cacheprovider", tmp_path)
    assert "3 passed" in output, output


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.comment == "run here"],
    ids=lambda block: block.place,
)
def test_what_is_run_in_a_checkout(block: Block) -> None:
    """Run one command, which may run others. make must not reinstall the virtual environment."""
    command, _, output = block.text[len("$ ") :].partition("\n")
    command = command.replace("make ", "make --no-print-directory -o .venv/.run ", 1)
    shown = shape(run(command, CHECKOUT))
    assert [line for line in shape(output) if line not in [*shown, "…"]] == []


def test_what_is_run_with_the_configuration_of_the_page(tmp_path: Path) -> None:
    configuration, count = "", 0
    for block in BLOCKS:
        if block.language == "ini":
            configuration = block.text
        elif block.comment == "run with the configuration above":
            path = tmp_path / "qemu-ga.conf"
            path.write_text(configuration)
            for step in steps(block.text):
                shown = run(step.command, tmp_path, QGA_CONF=str(path))
                assert shown.replace(str(path), CONFIGURATION) == step.output, block.place
                count += 1
    assert count


@pytest.fixture(scope="module")
def nowhere() -> Iterator[HostRoot]:
    """A host without guests."""
    with tempfile.TemporaryDirectory(prefix="qga-") as folder:
        yield HostRoot(Path(folder))


def scripts(block: Block) -> list[str]:
    """The commands in a block, except mistakes that the page shows on purpose."""
    if block.language == "console":
        return [step.command for step in steps(block.text) if "(see qgactl" not in step.output]
    return [block.text] if block.language == "sh" else []


QGACTL = [
    pytest.param(words, id=f"{block.place}: {' '.join(words)}")
    for block in BLOCKS
    for script in scripts(block)
    for words in commands(script)
    if words[0] == "qgactl" and not {"exporter", "mcp"} & {*words}  # which serve until they end
]


@pytest.mark.parametrize("words", QGACTL)
def test_command_lines_of_qgactl(nowhere: HostRoot, words: list[str]) -> None:
    """They are valid; the only error is that the guest is missing."""
    at_once = ["--timeout", "100ms"] if "wait" in words else []  # the last one counts
    done = subprocess.run(
        [*words, *at_once],
        env=environment(QGA_HOST_ROOT=str(nowhere.folder), QGA_CONNECT="web"),
        cwd=nowhere.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != WRONG_USAGE, done.stderr
