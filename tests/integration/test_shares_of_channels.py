"""A channel must not use up the threads, descriptors, memory or time of another."""

from __future__ import annotations

import base64
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration.agent_process import (
    AgentProcess,
    Client,
    Refused,
    listening,
    request,
    wait_for,
)
from tests.integration.data_ports import NAME, with_port
from tests.integration.gates import Gate, with_gates
from tests.integration.guest_file import File
from tests.integration.guest_program import output, run

MIB = 1024 * 1024
HUGE = 2**40  # bytes of a sparse file that nobody reads to its end


def other_channel(folder: Path, *lines: str) -> str:
    """The section of a second channel."""
    return "\n".join(["[channel other]", "method=unix-listen", f"path={folder}/other", *lines, ""])


@contextmanager
def two_channels(
    folder: Path, config: str = "", *lines: str, most: str = ""
) -> Iterator[tuple[AgentProcess, Callable[[], Client]]]:
    """An agent, and a function that connects to its second channel.

    most: soft and hard limit of its descriptors.
    """
    launcher = ["prlimit", f"--nofile={most}"] if most else []
    settings = config + other_channel(folder, *lines)
    with listening(folder, config=settings, launcher=launcher) as agent:
        agent.wait_for_socket(folder / "other")
        yield agent, lambda: agent.connect(folder / "other")


def until_refused(attempt: Callable[[], object], most: int = 3000) -> str:
    """Repeat a call until it is refused, and return the text of the error."""
    for _ in range(most):
        try:
            attempt()
        except Refused as error:
            return str(error)
    raise AssertionError(f"not refused after {most} times")


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """A file that takes minutes to read."""
    path = tmp_path / "huge"
    path.touch()
    os.truncate(path, HUGE)
    return path


class TestThreads:
    def test_what_hangs_on_one_channel_leaves_another_its_threads(
        self, tmp_path: Path, gate: Gate
    ) -> None:
        """Also if clients disconnect and connect again, so that their number limits nothing."""
        config = "[limits]\nthreads=8\n" + other_channel(tmp_path)
        with with_gates(tmp_path, config) as agent, agent.connect() as client:
            for _ in range(20):
                with agent.connect(tmp_path / "other") as leaver:
                    leaver.send(gate.request)
                    wait_for(lambda: agent.waits, "the request was read")
            assert client.call("qga-echo", text="x") == "x"
            assert output(client, "echo done") == "done\n"
            with agent.connect(tmp_path / "other") as leaver:
                for _ in range(3):
                    assert "still running" in leaver.refusal("qga-echo", text="x")
                    assert leaver.call("guest-fsfreeze-thaw") == 0, "which has threads of its own"
            gate.open_for_all()

    @pytest.mark.parametrize("syncs", [False, True])
    def test_a_command_that_nobody_waits_for_stops(
        self, tmp_path: Path, huge: Path, syncs: bool
    ) -> None:
        """It used to occupy a thread and a processor for as long as reading the file took."""
        with listening(tmp_path, config="[limits]\nthreads=1\n") as agent:
            with agent.connect() as client:
                client.send(request("qga-file-checksum", path=str(huge)))
                wait_for(lambda: agent.threads > 1, "the command runs")
                if syncs:
                    assert client.call("guest-sync", id=1) == 1
                    wait_for(lambda: summed_up(client, __file__), "a thread is free")
            with agent.connect() as client:
                wait_for(lambda: summed_up(client, __file__), "a thread is free")

    def test_requests_of_a_client_that_left_are_not_worked_through(
        self, tmp_path: Path, huge: Path
    ) -> None:
        with listening(tmp_path, config="[limits]\nthreads=1\n") as agent:
            with agent.connect() as client:
                client.send(request("qga-file-checksum", path=str(huge)) * 500)
            with agent.connect() as client:
                wait_for(lambda: summed_up(client, __file__), "a thread is free")

    def test_a_command_that_took_too_long_stops(self, tmp_path: Path) -> None:
        settings = "command-timeout=1\n[limits]\nthreads=1\n"
        with with_gates(tmp_path, settings) as agent, agent.connect() as client:
            reason = client.refusal("qga-go-round", note=f"{tmp_path}/note")
            assert "did not finish within 1 s" in reason
            wait_for((tmp_path / "note").exists, "it has stopped")
            wait_for(lambda: summed_up(client, __file__), "its thread is free")
            agent.wait_for_log("qga-go-round finished after")

    @pytest.mark.parametrize("command", ["qga-file-send", "qga-file-receive"])
    def test_a_transfer_that_stands_still_stops_with_its_client(
        self, tmp_path: Path, huge: Path, command: str
    ) -> None:
        with with_port(tmp_path, "[limits]\nthreads=1\n") as (agent, _host):
            with agent.connect() as client:
                more = {"count": 10} if command == "qga-file-receive" else {}
                path = str(huge) if not more else f"{tmp_path}/new"
                client.send(request(command, path=path, port=NAME, **more))
                wait_for(lambda: "/dev/pts" in str(agent.descriptors("/dev/pts")), "it has begun")
            wait_for(lambda: not agent.descriptors("/dev/pts"), "the port is given back")

    def test_only_files_with_an_end_are_summed_up_or_sent(self, tmp_path: Path) -> None:
        growing = tmp_path / "growing"
        os.mkfifo(tmp_path / "fifo")
        with with_port(tmp_path) as (agent, _), agent.connect() as client:
            for path in ("/dev/zero", "/dev/urandom", "/dev/tty", f"{tmp_path}/fifo"):
                for more in ({}, {"count": 10}):
                    reason = client.refusal("qga-file-checksum", path=path, **more)
                    assert reason.startswith("failed to ")
            reason = client.refusal("qga-file-send", path="/dev/zero", port=NAME)
            assert reason == "failed to read file '/dev/zero': not a regular file"
            assert summed_up(client, "/proc/version") == len(Path("/proc/version").read_bytes())
            with growing.open("wb", buffering=0) as file:
                file.write(bytes(8 * MIB))
                os.truncate(growing, HUGE)
                client.send(request("qga-file-checksum", path=str(growing)))
                wait_for(lambda: agent.threads > 1, "the command runs")
                os.truncate(growing, 0)
                assert client.result()["count"] <= HUGE


def summed_up(client: Client, path: Path | str) -> int:
    """How many bytes; 0 while there is no thread for it."""
    try:
        count: int = client.call("qga-file-checksum", path=str(path))["count"]
    except Refused as error:
        assert "still running" in str(error), error
        return 0
    return count


class TestDescriptors:
    def test_open_files_leave_enough_for_whatever_else(self, tmp_path: Path) -> None:
        """Also after the client has left, with a hard limit that nothing can raise."""
        with two_channels(tmp_path, most="256:256") as (agent, connect):
            with connect() as client:
                reason = until_refused(lambda: File(client, "/etc/passwd"))
                assert re.search("already have [0-9]+ of its [0-9]+ descriptors; close a", reason)
                assert reason == client.refusal("guest-exec", path="true")
            assert "qemu-ga: info: " in agent.log
            assert not re.search("qemu-ga: (?!info: )", agent.log), "nobody complains"
            with ExitStack() as stack:
                clients = [stack.enter_context(agent.connect()) for _ in range(10)]
                for each in clients:
                    assert output(each, "echo done") == "done\n"
                    File(each, "/etc/passwd")
                assert clients[0].call("guest-fsfreeze-thaw") == 0
                reason = clients[0].refusal(
                    "guest-set-user-password", username="nobody-here", password="eA==", crypted=True
                )
                assert "Too many open files" not in reason

    @pytest.mark.parametrize("command", ["guest-exec", "qga-exec"])
    @pytest.mark.parametrize("script", ["exec sleep 1000", "sleep 1000 &"])
    def test_programs_and_background_processes_leave_enough_descriptors(
        self, tmp_path: Path, command: str, script: str
    ) -> None:
        with two_channels(tmp_path, most="256:256") as (agent, connect):
            more = {"capture_output": True} if command == "guest-exec" else {}
            pids: list[int] = []

            def start() -> None:
                argv = ["-c", f"echo $$ >> {tmp_path}/pids; {script}"]
                pids.append(client.call(command, path="sh", arg=argv, **more)["pid"])

            try:
                with connect() as client:
                    assert "descriptors; close" in until_refused(start)
                with agent.connect() as other:
                    assert output(other, "echo done") == "done\n"
                    File(other, "/etc/passwd")
            finally:
                for pid in pids:
                    kill_session(pid)
            with connect() as client:
                wait_for(lambda: starts(client), "what has ended is given back")

    @pytest.mark.parametrize("number", [0, 200])
    def test_programs_get_the_limit_that_the_agent_was_started_with(
        self, tmp_path: Path, number: int
    ) -> None:
        """Also where the agent has more open than that allows."""
        with two_channels(tmp_path, most="100:2000") as (agent, _), agent.connect() as client:
            limits = Path(f"/proc/{agent.pid}/limits").read_text()
            assert re.search("Max open files +2000 +2000", limits)
            for _ in range(number):
                File(client, "/etc/passwd")
            assert output(client, "ulimit -Sn; ulimit -Hn") == "100\n2000\n"
            pid = client.call("qga-exec", path="sh", arg=["-c", "ulimit -Sn; tty"], tty=True)["pid"]
            text = wait_for(lambda: read_to_end(client, pid), "it has ended")
            assert re.fullmatch(r"100\r\n/dev/pts/[0-9]+\r\n", text)
            File(client, "/etc/passwd")

    def test_a_channel_opens_no_more_than_a_number_of_files(self, tmp_path: Path) -> None:
        launcher = ["prlimit", "--nofile=4000:4000"]
        with listening(tmp_path, launcher=launcher) as agent, agent.connect() as client:
            reason = until_refused(lambda: File(client, "/etc/passwd"))
            assert reason == "1024 files are already open; close one first"


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def starts(client: Client) -> bool:
    try:
        return bool(run(client, "true")["exitcode"] == 0)
    except Refused:
        return False


def read_to_end(client: Client, pid: int) -> str:
    reply = client.call("qga-exec-read", pid=pid)
    return base64.b64decode(reply["out-data"]).decode() if reply["exited"] else ""


def kill_session(session: int) -> None:
    """Processes that a program has left behind in its session."""
    for process in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if os.getsid(int(process)) == session:
                os.kill(int(process), 9)
        except ProcessLookupError:
            continue


class TestPrograms:
    @pytest.mark.parametrize(
        ("command", "look", "number"),
        [("qga-exec", "qga-exec-read", 260), ("guest-exec", "guest-exec-status", 1030)],
    )
    def test_programs_of_another_channel_are_not_forgotten(
        self, tmp_path: Path, command: str, look: str, number: int
    ) -> None:
        with two_channels(tmp_path) as (agent, connect), agent.connect() as client:
            pid = client.call(command, path="sh", arg=["-c", "exit 7"])["pid"]
            wait_for(lambda: not runs(pid), "it has ended")
            with connect() as other:
                others = [other.call(command, path="true")["pid"] for _ in range(number)]
                wait_for(lambda: not any(map(runs, others)), "they have ended")
                assert "does not exist" in other.refusal(look, pid=pid)
                assert "does not exist" in other.refusal(look, pid=others[0]), "one too many"
            assert client.call(look, pid=pid)["exitcode"] == 7


class TestTime:
    @pytest.mark.parametrize("piece", [b"\xff", b"{}", b"x]"], ids=["0xff", "nothing", "garbage"])
    def test_a_flood_does_not_delay_other_clients(self, tmp_path: Path, piece: bytes) -> None:
        flood = piece * ((96 * 1024 - 1) // len(piece)) + b"\xff"
        waits = []
        with listening(tmp_path) as agent, agent.connect() as bad, agent.connect() as good:
            for at in range(7):
                bad.send(flood)
                since = time.monotonic()
                good.call("guest-ping")
                waits.append(time.monotonic() - since)
                bad.send(request("guest-sync", id=at))
                while bad.line() != b'{"return": %d}\n' % at:
                    pass
        assert sorted(waits)[3] < 0.1, waits  # others use this machine, too

    def test_a_flood_is_answered_in_order(self, tmp_path: Path) -> None:
        """Wherever the limits of the queue and of a turn split it."""
        number = 30_000
        with listening(tmp_path) as agent, agent.connect() as client:
            client.socket.setblocking(False)
            unsent = b"".join(
                b'{}{"execute":"guest-sync","arguments":{"id":%d}}\n\xff' % at
                for at in range(number)
            )
            received = bytearray()
            deadline = time.monotonic() + 60
            while received.count(b"\n") < 3 * number and time.monotonic() < deadline:
                try:
                    if unsent:
                        unsent = unsent[client.socket.send(unsent) :]
                except BlockingIOError:
                    pass
                try:
                    received += client.socket.recv(MIB)
                except BlockingIOError:
                    pass
            lines = bytes(received).splitlines()
            assert lines[1::3] == [b'{"return": %d}' % at for at in range(number)]
            assert all(b"lacks member" in line for line in lines[::3])
            assert all(b"stray" in line or b"parse" in line for line in lines[2::3])

    @pytest.mark.parametrize("number", [3, 7000, 40_000])
    def test_everything_is_answered_after_the_client_shut_down_writing(
        self, agent: AgentProcess, number: int
    ) -> None:
        with agent.connect() as client:
            sender = threading.Thread(target=send_and_half_close, args=(client, number))
            sender.start()
            replies = client.rest()
            sender.join()
        assert replies == b'{"return": {}}\n' * number


def send_and_half_close(client: Client, number: int) -> None:
    client.send(request("guest-ping") * number)
    client.half_close()


class TestMemory:
    @pytest.mark.parametrize(
        "piece",
        [b"\xff", b"{}", b"[]", b"x ", request("guest-ping"), request("guest-nothing")],
        ids=["0xff", "nothing", "lists", "garbage", "pings", "unknown"],
    )
    def test_clients_that_send_much_and_read_nothing(self, tmp_path: Path, piece: bytes) -> None:
        with listening(tmp_path) as agent, ExitStack() as stack:
            idle = agent.memory("VmRSS")
            clients = [stack.enter_context(agent.connect()) for _ in range(15)]
            flood = piece * (4 * MIB // len(piece))
            for client in clients:
                client.socket.setblocking(False)
            for _ in range(40):
                for client in clients:
                    try:
                        client.socket.send(flood)
                    except BlockingIOError:
                        pass
                time.sleep(0.02)
            with agent.connect() as good:
                assert good.call("guest-ping") == {}
            assert agent.memory("VmHWM") - idle < 100 * MIB
            for client in clients:
                client.close()
            # Some 3 MB are carried out all the same, 6 µs for each 0xFF.
            wait_for(lambda: agent.waits, "nothing is left to be done", patience=120)
