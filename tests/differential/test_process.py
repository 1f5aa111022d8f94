"""What the process does otherwise than the originals: log, PID file, signals, background."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.differences import differs
from tests.differential.agents import ENVIRONMENT, OURS, PATIENCE, SUITES, Agent, original
from tests.differential.requests import call

both_versions = pytest.mark.parametrize("version", SUITES)

PING = call("guest-ping")


@contextmanager
def started(program: Sequence[str], folder: Path, *arguments: str) -> Iterator[Agent]:
    folder.mkdir(exist_ok=True)
    agent = Agent([*program, *arguments], folder)
    try:
        yield agent
    finally:
        agent.close()


def pair(version: str, folder: Path) -> Iterator[tuple[Sequence[str], Path]]:
    """The original and ours, each with a folder of its own."""
    yield original(version), folder / "original"
    yield OURS, folder / "ours"


@differs("log-of-requests", "forms-of-messages")
@both_versions
def test_the_log_of_a_request(tmp_path: Path, version: str) -> None:
    logs = []
    for program, folder in pair(version, tmp_path):
        with started(program, folder, "-v") as agent:
            agent.play(PING)
            logs.append(agent.errors.read_text(errors="replace"))
    theirs, ours = logs
    assert re.search(r"^\d+\.\d{6}: debug: read data, count: \d+, data: ", theirs, re.MULTILINE)
    assert "debug: processing command\n" in theirs
    assert "qemu-ga: debug: channel main: read data: guest-ping\n" in ours
    assert re.search(r"^qemu-ga: debug: channel main .*: guest-ping \{\}: done", ours, re.MULTILINE)


@differs("mode-of-the-log", "pid-file-in-foreground")
@both_versions
def test_files_in_the_foreground(tmp_path: Path, version: str) -> None:
    found = []
    for program, folder in pair(version, tmp_path):
        with started(program, folder, "-l", f"{folder}/log", "-f", f"{folder}/pid"):
            mode = stat.S_IMODE((folder / "log").stat().st_mode)
            found.append((mode, (folder / "pid").exists()))
    assert found == [(0o644, False), (0o640, True)]


@differs("other-signals")
@both_versions
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGALRM])
def test_signals(tmp_path: Path, version: str, number: signal.Signals) -> None:
    theirs, ours = pair(version, tmp_path)
    with started(*theirs) as agent:
        agent.process.send_signal(number)
        assert agent.process.wait(PATIENCE) == -number
    with started(*ours) as agent:
        agent.process.send_signal(number)
        assert agent.play(PING) == b'{"return": {}}\n'


@differs("umask-of-programs")
@both_versions
def test_the_umask_of_a_daemon(tmp_path: Path, version: str) -> None:
    assert [umask_of_daemon(*each) for each in pair(version, tmp_path)] == ["0077", "0022"]


def umask_of_daemon(program: Sequence[str], folder: Path) -> str:
    folder.mkdir()
    where = ["-m", "unix-listen", "-p", f"{folder}/socket", "-t", str(folder)]
    line = [*program, "-d", "-f", f"{folder}/pid", *where]
    subprocess.run(line, env=ENVIRONMENT, check=True, timeout=PATIENCE, umask=0o022)
    give_up = time.monotonic() + PATIENCE
    while not (folder / "pid").exists() or not (folder / "pid").read_text().endswith("\n"):
        assert time.monotonic() < give_up
        time.sleep(0.01)
    pid = int((folder / "pid").read_text())
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    finally:
        os.kill(pid, signal.SIGTERM)
    return status.partition("\nUmask:\t")[2].partition("\n")[0]


@differs("stale-marker")
@both_versions
def test_a_marker_while_nothing_is_frozen(tmp_path: Path, version: str) -> None:
    refused = []
    for program, folder in pair(version, tmp_path):
        folder.mkdir()
        marker = folder / "qga.state.isfrozen"
        marker.touch()
        with started(program, folder) as agent:
            give_up = time.monotonic() + (PATIENCE if program == OURS else 0.5)
            while marker.exists() and time.monotonic() < give_up:
                time.sleep(0.01)
            refused.append(b"has been disabled" in agent.play(call("guest-get-time")))
    assert refused == [True, False]


@differs("waiting-for-a-channel")
@both_versions
def test_waiting_for_a_channel(tmp_path: Path, version: str) -> None:
    ended = [stopped_while_waiting(program, tmp_path) for program, _ in pair(version, tmp_path)]
    (theirs, complaints), (ours, warning) = ended
    assert (theirs, ours) == (1, 0)
    assert "failed to create guest agent channel\n" in complaints
    assert warning.endswith("No such file or directory; waiting until it can be opened\n")


def stopped_while_waiting(program: Sequence[str], folder: Path) -> tuple[int, str]:
    """Exit status and messages after SIGTERM."""
    process = subprocess.Popen(
        [*program, "-r", "-p", "/nonexistent", "-t", str(folder)],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process.stderr:
        said = process.stderr.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        said += process.stderr.read()
    return process.wait(PATIENCE), said


@differs("time-zones")
@both_versions
def test_odd_time_zones(tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for zone, theirs, ours in (
        ("CET-1CEST", b'"UTC"', b'"CET"'),
        ("A" * 40 + "5", b'"%s"' % (b"A" * 32), b'"%s"' % (b"A" * 40)),
    ):
        monkeypatch.setitem(ENVIRONMENT, "TZ", zone)
        for (program, folder), name in zip(pair(version, tmp_path), (theirs, ours)):
            with started(program, folder) as agent:
                assert b'"zone": %s' % name in agent.play(call("guest-get-timezone"))


@differs("order-of-commands")
@both_versions
def test_the_order_of_commands(tmp_path: Path, version: str) -> None:
    theirs, ours = (commands_of(program, folder) for program, folder in pair(version, tmp_path))
    in_common = [name for name in theirs if name in ours]
    assert set(theirs) - set(in_common) <= {"guest-get-devices"}
    assert [name for name in ours if name in in_common] != in_common


def commands_of(program: Sequence[str], folder: Path) -> list[str]:
    with started(program, folder) as agent:
        told = json.loads(agent.play(call("guest-info")))
    return [each["name"] for each in told["return"]["supported_commands"]]


@differs("negative-handles")
@both_versions
def test_a_negative_counter(tmp_path: Path, version: str) -> None:
    answers = []
    for program, folder in pair(version, tmp_path):
        folder.mkdir()
        (folder / "qga.state").write_text("[global]\nfd_counter=-5\n")
        with started(program, folder) as agent:
            answers.append(agent.play(call("guest-file-open", '"path":"/dev/null"')))
    assert answers == [b'{"return": -1}\n', b'{"return": 0}\n']
