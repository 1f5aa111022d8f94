"""guest-exec: what a child inherits, and the cost of many children."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qga.errors import QgaError
from qga.loop import Loop
from qga.policy.caller import Caller
from qga.policy.policy import Policy
from qga.policy.shares import Descriptors
from qga.settings.config import ChannelConfig
from tests.differences import differs
from tests.integration.agent_process import AgentProcess, Client, listening, wait_for
from tests.integration.guest_program import final_status, output, run, start_program

exec_commands: Any = import_module("qga.commands.exec")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with listening(tmp_path_factory.mktemp("agent")) as agent:
        yield agent


@differs("background-child")
def test_a_background_process_does_not_hold_the_status_back(client: Client, tmp_path: Path) -> None:
    """It keeps running, and later output does not kill it."""
    gate, done = tmp_path / "gate", tmp_path / "done"
    os.mkfifo(gate)
    script = f"(read x <{gate}; seq 100000; echo alive >{done}) & echo started"
    pid = start_program(client, "sh", "-c", script, capture_output=True)
    status = final_status(client, pid)
    assert status["exitcode"] == 0
    assert status["out-data"] == b"started\n"
    assert status["out-truncated"]
    gate.write_text("go on\n")
    wait_for(lambda: done.exists() and done.read_text() == "alive\n", "it has written all")


SLOW = 'exec > >(while read -r l; do sleep 0.5; echo "$l"; done); seq 6'
LINES = b"1\n2\n3\n4\n5\n6\n"


@pytest.mark.parametrize("capture", ["stdout", "separated", "merged"])
@pytest.mark.parametrize(
    "script",
    [
        SLOW,
        "(sleep 1.5; seq 6) &",  # writes nothing before the end
        "seq 6; sleep 3 &",  # nor after it, but who knows
        "seq 6",
        "(sleep 0.3; seq 6) &",
    ],
)
def test_truncated_output_is_marked(client: Client, script: str, capture: str) -> None:
    pid = start_program(client, "bash", "-c", script, capture_output=capture)
    status = final_status(client, pid)
    whole = status["out-data"] == LINES and "3 &" not in script
    assert LINES.startswith(status["out-data"])
    assert status["out-truncated"] is not whole
    if capture == "separated" and "&" not in script and script != SLOW:
        assert "err-data" not in status and "err-truncated" not in status


def test_without_room_for_any_output_it_is_said(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    config = "[limits]\ncaptured=4\n"
    with listening(tmp_path, config=config) as agent, agent.connect() as client:
        script = f"printf abcd; read x <{gate}"
        first = start_program(client, "sh", "-c", script, capture_output=True)
        wait_for(lambda: agent.waits, "the output to be read")
        second = final_status(client, start_program(client, "echo", "hi", capture_output=True))
        gate.write_text("go on\n")
        assert final_status(client, first)["out-data"] == b"abcd"
    assert (second["out-data"], second["out-truncated"]) == (b"", True)


def test_a_child_has_three_descriptors_only(client: Client) -> None:
    handle = client.call("guest-file-open", path="/dev/zero")
    for more in ({}, {"input_data": "aGk="}):
        # ls has its own descriptor of the folder open
        assert output(client, "exec ls /proc/self/fd", **more).split() == ["0", "1", "2", "3"]
    client.call("guest-file-close", handle=handle)


def test_a_child_does_not_inherit_what_the_agent_was_started_with(tmp_path: Path) -> None:
    with ExitStack() as stack:
        secret = stack.enter_context((tmp_path / "secret").open("w"))
        agent = stack.enter_context(listening(tmp_path, pass_fds=[secret.fileno()]))
        client = stack.enter_context(agent.connect())
        assert "secret" not in output(client, "ls -l /proc/self/fd")


def test_a_child_has_a_session_of_its_own(agent: AgentProcess, client: Client) -> None:
    pid = start_program(client, "sh", "-c", "exec cat /proc/self/stat", capture_output=True)
    fields = final_status(client, pid)["out-data"].rpartition(b")")[2].split()
    process_group, session = int(fields[2]), int(fields[3])
    assert process_group == session == pid


_REAL_SIGNALS = (1 << 31) - 1  # 32 and 33 are the C library's own


def test_a_child_has_default_signal_dispositions(client: Client) -> None:
    lines = output(client, "exec cat /proc/self/status").splitlines()
    masks = dict(line.split(":\t") for line in lines if line.startswith("Sig"))
    for name in ("SigIgn", "SigBlk", "SigCgt"):
        assert int(masks[name], 16) & _REAL_SIGNALS == 0, masks


def test_two_hundred_children_at_once(agent: AgentProcess, client: Client) -> None:
    run(client, "true")
    threads = agent.threads
    pids = [
        start_program(client, "sh", "-c", f"echo {number}; exit {number % 7}", capture_output=True)
        for number in range(200)
    ]
    for number, pid in enumerate(pids):
        status = final_status(client, pid)
        assert status["out-data"] == b"%d\n" % number
        assert status["exitcode"] == number % 7
    assert agent.threads == threads


def test_children_cost_no_threads_and_leave_no_zombies(
    agent: AgentProcess, client: Client, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    run(client, "true")
    threads = agent.threads
    pids = [
        start_program(client, "sh", "-c", f"read x <{gate}", capture_output=True, input_data="")
        for _ in range(50)
    ]
    assert agent.threads == threads
    assert children_of(agent.pid) >= set(pids)
    with gate.open("w"):
        pass
    wait_for(lambda: open_for_all(gate, agent, pids), "all are reaped, though nobody has asked")
    assert {final_status(client, pid)["exited"] for pid in pids} == {True}


def open_for_all(gate: Path, agent: AgentProcess, pids: list[int]) -> bool:
    try:
        os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:  # nobody reads it
        pass
    return not children_of(agent.pid) & set(pids)


def children_of(pid: int) -> set[int]:
    """Processes with this parent, zombies included."""
    path = Path(f"/proc/{pid}/task")
    return {
        int(child) for task in path.iterdir() for child in (task / "children").read_text().split()
    }


def test_clients_may_run_programs_at_the_same_time(agent: AgentProcess) -> None:
    failures: list[object] = []

    def work(number: int) -> None:
        with agent.connect() as client:
            for _ in range(10):
                text = output(client, f"echo {number}")
                if text != f"{number}\n":
                    failures.append(text)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


class Group:
    """The commands on a loop that the test controls."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.caller = Caller("main", Policy())
        agent = SimpleNamespace(loop=self.loop, descriptors=Descriptors(1024, [ChannelConfig()]))
        self.commands = exec_commands.Exec(agent)

    def run(self, script: str) -> int:
        """Run a script to its end, and return its pid."""
        start = self.commands.guest_exec
        pid: int = start("sh", ["-c", script], capture_output=True, caller=self.caller)["pid"]
        self.turn_until(lambda: self.has_ended(pid))
        return pid

    def has_ended(self, pid: int) -> bool:
        job = self.commands._jobs.get((self.caller.channel, pid))
        return job is not None and job.child.status is not None

    def turn_until(self, condition: Callable[[], bool]) -> None:
        def turn() -> bool:
            self.loop.post(self.loop.stop)
            self.loop.run()
            return condition()

        wait_for(turn, "the loop has come so far")

    def is_known(self, pid: int) -> bool:
        try:
            status = self.commands.guest_exec_status(pid, caller=self.caller)
        except QgaError as error:
            assert str(error) == f"PID {pid} does not exist"
            return False
        assert status["exited"]
        return True


@pytest.fixture
def group() -> Iterator[Group]:
    group = Group()
    yield group
    group.loop.close()


def test_the_oldest_of_too_many_unfetched_statuses_is_forgotten(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exec_commands, "MAX_FINISHED", 3)
    pids = [group.run("true") for _ in range(5)]
    assert [group.is_known(pid) for pid in pids] == [False, False, True, True, True]


def test_the_oldest_of_too_much_unfetched_output_is_forgotten(
    group: Group,
) -> None:
    group.caller = Caller("main", Policy(ChannelConfig("main", "", "", limits_captured=1000)))
    pids = [group.run("head -c 400 /dev/zero") for _ in range(4)]
    assert [group.is_known(pid) for pid in pids] == [False, False, True, True]


def test_children_that_still_run_are_not_forgotten(
    group: Group, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(exec_commands, "MAX_FINISHED", 1)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    start = group.commands.guest_exec
    running = start("sh", ["-c", f"read x <{gate}"], caller=group.caller)["pid"]
    for _ in range(3):
        group.run("true")
    gate.write_text("go on\n")
    group.turn_until(lambda: group.has_ended(running))
    assert group.is_known(running)


OF_THE_SERVICE = (  # systemd.exec(5), "Environment variables set or propagated"
    *("FDSTORE", "INVOCATION_ID", "LISTEN_FDNAMES", "MANAGERPID", "MANAGERPIDFDID"),
    *("MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE", "SYSTEMD_EXEC_PID", "WATCHDOG_PID"),
)


def test_a_child_is_without_the_variables_of_the_service_manager(tmp_path: Path) -> None:
    """It would use the agent's memory pressure file, watchdog or descriptors as its own."""
    environment = {**os.environ, **dict.fromkeys(OF_THE_SERVICE, "1"), "OF_THE_ADMINISTRATOR": "1"}
    with listening(tmp_path, env=environment) as agent, agent.connect() as client:
        names = {line.split("=")[0] for line in output(client, "env").splitlines()}
    assert "OF_THE_ADMINISTRATOR" in names
    assert not names & set(OF_THE_SERVICE)
