"""A short soak, and that what would be wrong is seen."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.integration.agent_process import request, wait_for
from tests.integration.gates import Gate
from tests.soak import chaos
from tests.soak.__main__ import main
from tests.soak.chaos import KINDS, Kind, Soak, children_of, soaking
from tests.soak.scene import Scene

SECONDS = 20


def test_good_clients_among_bad_ones(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--seconds", str(SECONDS), "--seed", "1"])
    shown, faults = capsys.readouterr()
    assert faults == ""
    assert status == 0
    rows = {line[:18].strip(): line[18:].split() for line in shown.splitlines()}
    for kind in KINDS:
        assert int(rows[kind.name][1]) > 0, f"no turn of a client that {kind.name}"


def answers_wrongly(scene: Scene) -> None:
    with scene.connect() as client:
        client.send(request("guest-ping"))
        scene.expect(client, {"return": {"more": "than there is"}})


def answers_nothing(scene: Scene) -> None:
    with scene.connect() as client:
        client.socket.settimeout(0.1)
        scene.expect(client, {"return": {}})


@pytest.mark.parametrize("turn", [answers_wrongly, answers_nothing])
def test_a_wrong_or_missing_answer_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turn: chaos.Turn
) -> None:
    monkeypatch.setattr(chaos, "KINDS", [Kind(turn, 1)])
    with soaking(tmp_path, seed=1) as soak:
        soak.round(seconds=10)
    assert turn.__name__.replace("_", " ") in soak.faults[0]


def faults_of_an_empty_round(soak: Soak, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(chaos, "KINDS", [])
    monkeypatch.setattr(chaos, "PATIENCE", 0.2)
    soak.round(seconds=0)
    (fault,) = soak.faults
    return fault


def test_a_connection_that_stays_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with soaking(tmp_path, seed=1) as soak, soak.agent.connect() as client:
        client.call("guest-ping")
        assert "descriptors" in faults_of_an_empty_round(soak, monkeypatch)


def test_a_command_that_still_runs_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(tmp_path / "gate")
    with soaking(tmp_path, seed=1) as soak:
        with soak.agent.connect() as client:
            client.send(gate.request)
            gate.wait_until_reached()
        assert "threads in" in faults_of_an_empty_round(soak, monkeypatch)
        gate.open_for_all()


def test_a_child_that_stays_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with soaking(tmp_path, seed=1) as soak:
        with soak.agent.connect() as client:
            pid = client.call("guest-exec", path="sleep", arg=["60"])["pid"]
        wait_for(lambda: list(children_of(soak.agent.pid)) == [(pid, "S")], "the child to sleep")
        assert f"children {pid} (S)" in faults_of_an_empty_round(soak, monkeypatch)
        os.kill(pid, signal.SIGKILL)


def test_memory_that_grows_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos, "KINDS", [])
    with soaking(tmp_path, seed=1) as soak:
        soak.round(seconds=0)
        last = soak.rounds[-1]
        soak.rounds.append(last._replace(memory=last.memory + chaos.GROWTH + 1))
        soak.judge()
    assert "memory has grown" in soak.faults[0]
