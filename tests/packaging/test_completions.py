"""Completions in real shells on a terminal.

fish needs a terminal emulator, so it is asked for its completions instead.
"""

from __future__ import annotations

import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from qga_docs.__main__ import write_files

from tests.integration.client_agents import running

SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], ". {folder}/bash/{program}"),
    "zsh": (
        ["zsh", "-f", "-i"],
        "bindkey -e; fpath=({folder}/zsh $fpath); "
        "autoload -U compinit; compinit -u -d {folder}/dump",
    ),
}

LINES = [
    ("qemu-ga --meth", "qemu-ga --method"),
    ("qemu-ga -m i", "qemu-ga -m isa-serial"),
    ("qemu-ga --method=vs", "qemu-ga --method=vsock-listen"),
    ("qemu-ga --block-rpcs guest-get-o", "qemu-ga --block-rpcs guest-get-osinfo"),
    ("qemu-ga -b guest-ping,guest-get-o", "qemu-ga -b guest-ping,guest-get-osinfo"),
    ("qemu-ga --config {folder}/qemu-ga.co", "qemu-ga --config {folder}/qemu-ga.conf"),
    ("qgactl pi", "qgactl ping"),
    ("qgactl --js", "qgactl --json"),
    ("qgactl --json ping --cou", "qgactl --json ping --count"),
    ("qgactl call guest-get-o", "qgactl call guest-get-osinfo"),
    ("qgactl call guest-file-open pa", "qgactl call guest-file-open path="),
    (
        "qgactl call --json guest-exec path=x inp",
        "qgactl call --json guest-exec path=x input-data=",
    ),
    ("qgactl suspend hy", "qgactl suspend hybrid"),
    ("qgactl ssh-keys rem", "qgactl ssh-keys remove"),
    ("qgactl ssh-keys add --res", "qgactl ssh-keys add --reset"),
    ("qgactl ssh-keys add me {folder}/qemu-ga.co", "qgactl ssh-keys add me {folder}/qemu-ga.conf"),
    ("qgactl passwd --std", "qgactl passwd --stdin"),
    ("qgactl trim --mini", "qgactl trim --minimum"),
    ("qgactl --connect lib", "qgactl --connect libvirt:"),
    ("qgactl ping --conn", "qgactl ping --connect"),
    ("qgactl os -o ya", "qgactl os -o yaml"),
    ("qgactl ping we", "qgactl ping web"),
    ("qgactl ping -c we", "qgactl ping -c web"),
    ("qgactl exec we", "qgactl exec web"),
    ("qgactl top db we", "qgactl top db web"),
    ("qgactl ssh-keys web rem", "qgactl ssh-keys web remove"),
    ("qgactl suspend web hy", "qgactl suspend web hybrid"),
    ("qgactl call web guest-get-o", "qgactl call web guest-get-osinfo"),
    ("qgactl cat web:{folder}/qemu-ga.co", "qgactl cat web:{folder}/qemu-ga.conf"),
    ("qgactl cat web:{folder}/a\\ bl", "qgactl cat web:{folder}/a\\ blank"),
    ("qgactl cp web:{folder}/a", "qgactl cp web:{folder}/a\\ blank"),
    ("qgactl ping my", "qgactl ping my\\ guest"),
    ("qgactl cp web:{folder}/qemu-ga.co", "qgactl cp web:{folder}/qemu-ga.conf"),
    ("qgactl cp {folder}/qemu-ga.co", "qgactl cp {folder}/qemu-ga.conf"),
    ("qgactl cat web:{folder}/ba", "qgactl cat web:{folder}/bash/"),
    ("qgactl --connect unix:{folder}/qemu-ga.co", "qgactl --connect unix:{folder}/qemu-ga.conf"),
    ("qgactl exec --input {folder}/qemu-ga.co", "qgactl exec --input {folder}/qemu-ga.conf"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("made")
    write_files(made, "2026-01-01")
    (made / "qemu-ga.conf.5").unlink()  # one file alone begins with qemu-ga.co
    (made / "a blank").touch()
    (made / ".config").mkdir()
    with running("ours", made) as address:
        names = f'[guests]\nweb = "{address}"\ndb = "unix:/nowhere"\n"my guest" = "unix:/nowhere"\n'
        (made / ".config/qgactl.toml").write_text(names)
        yield made


PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def completed(shell: str, folder: Path, line: str) -> str:
    """Return the line after TAB was pressed."""
    argv, setup = SHELLS[shell]
    here = {"folder": str(folder), "program": line.split(maxsplit=1)[0]}
    # The shell puts the signs together; the echo of what is typed does not have them joined.
    keys = f"{line.format(**here)}\t\x01echo se''en: \r"
    leader, terminal = pty.openpty()
    environment = {"PATH": PATH, "HOME": str(folder), "TERM": "dumb"}
    process = subprocess.Popen(
        argv,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment,
        start_new_session=True,
    )
    os.close(terminal)
    try:
        os.write(leader, f"{setup.format(**here)}; echo rea''dy\r".encode())
        read_until(leader, "ready")
        os.write(leader, keys.encode())
        return read_until(leader, "seen:").partition("seen:")[2].strip()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(leader)


def read_until(leader: int, mark: str) -> str:
    """The line of the terminal that has `mark` in it."""
    seen = ""
    deadline = time.monotonic() + 30
    while not any(mark in line for line in seen.split("\n")[:-1]):
        ready, _, _ = select.select([leader], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"no {mark!r} in {seen!r}"
        seen += os.read(leader, 65536).decode(errors="replace")
    return next(line for line in seen.split("\n") if mark in line)


@pytest.mark.parametrize(("line", "result"), LINES)
def test_fish_completes(folder: Path, line: str, result: str) -> None:
    program = line.split(maxsplit=1)[0]
    line, result = line.format(folder=folder), result.format(folder=folder)
    script = f"source {folder}/fish/{program}.fish; complete --do-complete {shlex.quote(line)}"
    told = subprocess.run(
        ["fish", "--no-config", "-c", script],
        env={"PATH": PATH, "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    words = [word.split("\t")[0] for word in told.stdout.splitlines()]
    # Whether fish quotes in this list depends on its version.
    assert [word.replace("\\ ", " ") for word in words] == [shlex.split(result)[-1]]


@pytest.mark.parametrize(("line", "result"), LINES)
@pytest.mark.parametrize("shell", SHELLS)
def test_completes(shell: str, folder: Path, line: str, result: str) -> None:
    assert completed(shell, folder, line) == " ".join(shlex.split(result.format(folder=folder)))
