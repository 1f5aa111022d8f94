"""qgactl exec in several guests at once, and qga.client.each: two agents of ours, one of QEMU's."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from qga.client import each
from tests.integration.agent_process import wait_for
from tests.integration.client_agents import running
from tests.integration.qgactl_process import QGACTL, Result, environment, qgactl

GUESTS = {"web": "ours", "db": "ours", "old": "original"}


@pytest.fixture(scope="module")
def guests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(running(agent, tmp_path_factory.mktemp(name)))
            for name, agent in GUESTS.items()
        }


def words(guests: dict[str, str], *names: str) -> list[str]:
    return [f"{name}={guests[name]}" for name in names or guests]


def run(guests: dict[str, str], *arguments: str, stdin: str = "") -> Result:
    return qgactl("exec", *words(guests), *arguments, stdin=stdin)


FOR_EVER = "while :; do sleep 0.05; echo y; done"


def started(guests: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*QGACTL, "exec", *words(guests), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(None),
    )


def test_each_line_has_its_guest(guests: dict[str, str]) -> None:
    status, out, err = run(guests, "--", "sh", "-c", "echo one; echo two; printf end; echo no >&2")
    assert status == 0
    assert sorted(out.splitlines()) == sorted(
        f"{name}: {text}" for name in GUESTS for text in ("one", "two", "end")
    )
    assert sorted(err.splitlines()) == sorted(f"{name}: no" for name in GUESTS)


def test_the_status_is_the_greatest(guests: dict[str, str], tmp_path: Path) -> None:
    script = f"mkdir {tmp_path}/first 2>/dev/null && exit 3; exit 7"
    status, out, err = run(guests, "--", "sh", "-c", script)
    assert (status, out) == (7, "")
    said = sorted(line.partition(": exit status ")[2] for line in err.splitlines())
    assert said == ["3", "7", "7"]


def test_a_guest_that_does_not_answer_stops_nobody(guests: dict[str, str], tmp_path: Path) -> None:
    status, out, err = qgactl(
        "exec", f"gone=unix:{tmp_path}/none", *words(guests, "web"), "--", "echo", "here"
    )
    assert (status, out) == (125, "web: here\n")
    assert err.startswith("qgactl: gone: ") and "No such file" in err and err.count("\n") == 1


def test_json_has_an_object_for_each_guest(guests: dict[str, str], tmp_path: Path) -> None:
    status, out, _ = qgactl(
        "exec", f"gone=unix:{tmp_path}/none", *words(guests), "--json", "--", "echo", "here"
    )
    found = {each.pop("guest"): each for each in map(json.loads, out.splitlines())}
    assert status == 125
    assert found.keys() == {*GUESTS, "gone"}
    assert "No such file" in found["gone"]["error"]
    for name in GUESTS:
        assert found[name]["exitcode"] == 0
        assert base64.b64decode(found[name]["out-data"]) == b"here\n"


def test_each_reads_all_of_the_input(guests: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_text("text\n")
    everywhere = sorted(f"{name}: text" for name in GUESTS)
    status, out, _ = run(guests, "--input", str(path), "--", "cat")
    assert (status, sorted(out.splitlines())) == (0, everywhere)
    status, out, _ = run(guests, "-i", "--", "cat", stdin="text\n")  # a pipe
    assert (status, sorted(out.splitlines())) == (0, everywhere)
    assert run(guests, "--", "cat", stdin="unread") == (0, "", "")


def test_one_after_the_other(guests: dict[str, str], tmp_path: Path) -> None:
    lock = f"mkdir {tmp_path}/lock && sleep 0.2 && rmdir {tmp_path}/lock"
    assert run(guests, "--at-once", "1", "--", "sh", "-c", lock)[0] == 0
    assert run(guests, "--", "sh", "-c", lock)[0] != 0


def test_an_interrupt_reaches_all_programs(guests: dict[str, str], tmp_path: Path) -> None:
    running = f"trap 'rm {tmp_path}/$$; exit 9' INT; touch {tmp_path}/$$"
    process = started(guests, "--at-once", "2", "--", "sh", "-c", f"{running}; {FOR_EVER}")
    wait_for(lambda: len(list(tmp_path.iterdir())) == 2, "two programs")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 9, err
    assert not list(tmp_path.iterdir())  # and the third has not been started


def test_nobody_reads_on(guests: dict[str, str]) -> None:
    with started(guests, "--", "sh", "-c", FOR_EVER) as process:
        assert process.stdout and process.stdout.read(3)
        process.stdout.close()
        assert process.wait(60) in (141, 143)


def test_a_line_without_end_is_printed_in_pieces(guests: dict[str, str]) -> None:
    status, out, _ = run(guests, "--", "sh", "-c", "head -c 200000 /dev/zero | tr '\\0' x")
    pieces = [line.partition(": ") for line in out.splitlines()]
    assert status == 0
    for name in GUESTS:
        assert sum(len(text) for guest, _, text in pieces if guest == name) == 200_000


def test_the_library(guests: dict[str, str]) -> None:
    outcomes = each(guests.values(), lambda agent: agent.exec(["echo", "x"]).stdout)
    found = {outcome.guest: outcome.result() for outcome in outcomes}
    assert found == dict.fromkeys(guests.values(), b"x\n")
