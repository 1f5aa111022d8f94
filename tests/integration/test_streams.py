"""qga-exec and qga-exec-*: programs whose input and output are streamed to the host."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.integration.agent_process import (
    AgentProcess,
    Client,
    Refused,
    listening,
    refused,
    wait_for,
)
from tests.integration.data_ports import NAME, HostEnd, with_port
from tests.integration.guest_program import run

KEPT = 256 * 1024
OF_PROGRAMS = ("/dev/", "pipe:", "anon_inode:")  # descriptors, those of connections left out


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AgentProcess, HostEnd]]:
    with with_port(tmp_path_factory.mktemp("agent")) as (agent, host):
        yield agent, host


@pytest.fixture
def agent(served: tuple[AgentProcess, HostEnd]) -> AgentProcess:
    return served[0]


@pytest.fixture
def host(served: tuple[AgentProcess, HostEnd]) -> HostEnd:
    served[1].forget()
    return served[1]


def start(client: Client, script: str, **how: Any) -> int:
    """Run a shell script; its process id."""
    return int(client.call("qga-exec", path="/bin/sh", arg=["-c", script], **how)["pid"])


def seen(client: Client, pid: int, **offsets: int) -> dict[str, Any]:
    """The reply of qga-exec-read, decoded."""
    result = client.call("qga-exec-read", pid=pid, **offsets)
    for stream in ("out", "err"):
        result[stream] = base64.b64decode(result.pop(f"{stream}-data", ""))
    return dict(result)


def ended(client: Client, pid: int) -> dict[str, Any]:
    return wait_for(lambda: (now := seen(client, pid))["exited"] and now, f"the end of {pid}")


@pytest.mark.parametrize(
    ("script", "truncated"),
    [
        ('exec > >(while read -r l; do sleep 0.5; echo "$l"; done); seq 6', True),
        ("(sleep 1.5; seq 6) &", True),
        ("(sleep 0.3; seq 6) &", False),
        ("seq 6", False),
    ],
)
def test_truncated_output_is_marked(client: Client, script: str, truncated: bool) -> None:
    pid = client.call("qga-exec", path="/bin/bash", arg=["-c", script])["pid"]
    over = ended(client, pid)
    assert over.get("out-truncated", False) is truncated
    assert (over["out"] == b"1\n2\n3\n4\n5\n6\n") is not truncated


def bring(client: Client, pid: int, data: bytes, **how: Any) -> int:
    text = base64.b64encode(data).decode()
    return int(client.call("qga-exec-write", pid=pid, buf_b64=text, **how)["count"])


def test_both_outputs_and_the_exit_code(client: Client) -> None:
    over = ended(client, start(client, "echo out; echo err >&2; exit 3"))
    assert over == {
        "out": b"out\n", "out-offset": 0, "out-total": 4,
        "err": b"err\n", "err-offset": 0, "err-total": 4,
        "exited": True, "exitcode": 3,
    }  # fmt: skip


def test_output_comes_while_the_program_runs(client: Client) -> None:
    pid = start(client, "echo one; read line; echo $line")
    wait_for(lambda: seen(client, pid)["out"] == b"one\n", "the first line")
    assert seen(client, pid, offset=4)["out"] == b""
    assert bring(client, pid, b"two\n") == 4
    over = ended(client, pid)
    assert (over["out"], over["out-offset"], over["out-total"]) == (b"two\n", 4, 8)


def test_a_reply_that_was_lost_can_be_asked_for_again(client: Client) -> None:
    pid = start(client, "echo 0123456789")
    ended(client, pid)
    for _ in range(2):
        again = seen(client, pid, offset=4)
        assert (again["out"], again["out-offset"]) == (b"456789\n", 4)
    late = seen(client, pid, offset=2)  # what is acknowledged is given up
    assert (late["out"], late["out-offset"]) == (b"456789\n", 4)
    with refused("Parameter 'offset' is 12, but only 11 bytes have come"):
        client.call("qga-exec-read", pid=pid, offset=12)


def test_much_output_is_complete_and_little_is_buffered(client: Client) -> None:
    pid = start(client, "seq 1 300000; echo done >&2")
    full = wait_for(
        lambda: (now := seen(client, pid))["out-total"] == KEPT and now, "a full buffer"
    )
    assert (full["exited"], full["err"]) == (False, b"")
    data = b""
    while not ((now := seen(client, pid, offset=len(data)))["exited"] and not now["out"]):
        assert now["out-offset"] == len(data)
        assert len(now["out"]) <= KEPT
        data += now["out"]
    assert data == b"".join(b"%d\n" % number for number in range(1, 300_001))
    assert (now["err"], now["out-total"]) == (b"done\n", len(data))


def test_input_beyond_the_buffer_is_not_accepted(client: Client) -> None:
    pid = start(client, "exec sleep 1000")
    sent = 0
    while count := bring(client, pid, bytes(10**6), eof=True):
        sent += count
    assert KEPT <= sent < 10**6  # a pipe takes some, too
    client.call("qga-exec-signal", pid=pid, signal="KILL")
    assert ended(client, pid)["signal"] == 9


def test_much_input_and_its_end(client: Client) -> None:
    content = bytes(range(256)) * 8000
    pid, rest = start(client, "sha256sum"), content
    while rest:
        rest = rest[bring(client, pid, rest[:KEPT], eof=len(rest) <= KEPT) :]
    assert ended(client, pid)["out"].split()[0].decode() == sha256(content).hexdigest()
    assert bring(client, pid, b"") == 0


def test_a_program_that_has_stopped_reading_accepts_all_input(client: Client) -> None:
    pid = start(client, "exec <&-; sleep 1000")
    wait_for(lambda: bring(client, pid, bytes(10**6)) == 10**6, "the closed pipe to be noticed")
    client.call("qga-exec-signal", pid=pid, signal=9)
    assert ended(client, pid)["signal"] == 9


def test_input_after_eof_is_refused(client: Client) -> None:
    pid = start(client, "cat; sleep 1000")
    bring(client, pid, b"all", eof=True)
    with refused(f"the input of PID {pid} has ended already"):
        bring(client, pid, b"more")
    wait_for(lambda: seen(client, pid)["out"] == b"all", "the output")
    client.call("qga-exec-signal", pid=pid, signal="SIGKILL")
    assert ended(client, pid)["signal"] == 9


def test_a_background_process_does_not_delay_the_exit(client: Client) -> None:
    over = ended(client, start(client, "echo out; sleep 1000 & echo $! >&2"))
    assert (over["out"], over["exitcode"]) == (b"out\n", 0)
    os.kill(int(over["err"]), 9)


def test_a_terminal(client: Client) -> None:
    script = "stty -echo; tty; echo $TERM; stty size; trap 'stty size; exit 4' WINCH; echo ready; "
    script += "while read line; do :; done"
    pid = start(client, script, tty=True, rows=30, columns=100, term="vt100")
    wait_for(lambda: seen(client, pid)["out"].endswith(b"ready\r\n"), "the first lines")
    lines = seen(client, pid)["out"].decode().split()
    assert re.fullmatch(r"/dev/pts/\d+", lines[0])
    assert lines[1:] == ["vt100", "30", "100", "ready"]
    client.call("qga-exec-resize", pid=pid, rows=31, columns=101)
    bring(client, pid, b"\r")
    over = ended(client, pid)
    assert over["out"].endswith(b"31 101\r\n")
    assert over["exitcode"] == 4


def test_eof_at_a_terminal(client: Client) -> None:
    pid = start(client, "stty -echo; echo ready; cat", tty=True)
    wait_for(lambda: seen(client, pid)["out"] == b"ready\r\n", "cat")
    bring(client, pid, b"typed\n", eof=True)
    over = ended(client, pid)
    assert (over["out"], over["exitcode"]) == (b"ready\r\ntyped\r\n", 0)


def test_a_terminal_is_the_programs_own(client: Client) -> None:
    """It is in the foreground of its own session, so ^C reaches only it."""
    pid = start(client, "exec tr a-z A-Z", tty=True)
    bring(client, pid, b"ready\n")
    wait_for(lambda: seen(client, pid)["out"].endswith(b"READY\r\n"), "the program")
    assert os.getsid(pid) == os.getpgid(pid) == pid
    bring(client, pid, b"\x03")
    assert ended(client, pid)["signal"] == 2


@pytest.mark.parametrize("tty", [False, True])
def test_a_port_carries_input_and_output(client: Client, host: HostEnd, tty: bool) -> None:
    script = "stty -echo 2>/dev/null; echo ready; read line; echo got $line; exit 5"
    pid = start(client, script, port=NAME, tty=tty)
    end = "\r\n" if tty else "\n"
    ready = f"ready{end}".encode()
    assert host.take(len(ready)) == ready
    host.send(b"this\n")
    answer = f"got this{end}".encode()
    assert host.take(len(answer)) == answer
    over = ended(client, pid)
    assert (over["exitcode"], over["out-total"]) == (5, len(ready + answer))
    assert over["out"] == over["err"] == b""


def test_eof_at_a_port(client: Client, host: HostEnd) -> None:
    pid = start(client, "wc -c", port=NAME)
    client.call("qga-exec-write", pid=pid, eof=True, after=5)
    host.send(b"12345")
    assert host.take(2) == b"5\n"
    assert ended(client, pid)["exitcode"] == 0


def test_a_port_is_released(client: Client, host: HostEnd, agent: AgentProcess) -> None:
    pid = start(client, "echo >&2 ready; sleep 1000", port=NAME)
    wait_for(lambda: seen(client, pid)["err"], "the program")
    assert len(agent.descriptors(host.path)) == 1
    client.call("qga-exec-signal", pid=pid, signal="TERM")
    assert ended(client, pid)["signal"] == 15
    assert agent.descriptors(host.path) == []


def test_a_program_is_killed_when_the_host_disconnects(tmp_path: Path) -> None:
    with with_port(tmp_path) as (agent, host), agent.connect() as client:
        before = agent.descriptors(*OF_PROGRAMS)
        script = "trap '' HUP; sleep 1000 & echo $!; sleep 1000; sleep 1000"
        pid = start(client, script, port=NAME)
        child = int(host.take_line())
        host.close()
        assert ended(client, pid)["signal"] == 9
        wait_for(lambda: not os.path.exists(f"/proc/{child}"), "the end of what it has started")
        assert agent.descriptors(*OF_PROGRAMS) == before


def test_no_descriptor_leaks(client: Client, agent: AgentProcess) -> None:
    before = agent.descriptors(*OF_PROGRAMS)
    for tty in (False, True):
        for script in ("exit 0", "cat", "exec <&- >&- 2>&-; exit 1"):
            pid = start(client, script, tty=tty)
            bring(client, pid, b"", eof=True)
            ended(client, pid)
    assert agent.descriptors(*OF_PROGRAMS) == before


def test_a_program_that_cannot_be_started_is_an_error(client: Client) -> None:
    before = client.call("guest-ping")
    assert client.refusal("qga-exec", path="no-such-program").startswith("failed to start")
    with refused("failed to enter the directory '/none': No such file or directory"):
        client.call("qga-exec", path="sh", directory="/none")
    with refused("Parameter 'directory' is empty; use the path of a directory"):
        client.call("qga-exec", path="sh", directory="")
    with refused("no port 'none': this guest has org.qga.data.0"):
        client.call("qga-exec", path="sh", port="none")
    with refused("a terminal cannot have 0 rows or columns"):
        client.call("qga-exec", path="sh", tty=True, rows=0)
    assert before == {}


def test_directory_and_environment(client: Client, tmp_path: Path) -> None:
    how = {"directory": str(tmp_path), "env": ["PATH=/usr/bin:/bin", "A=b c"], "term": "vt100"}
    over = ended(client, start(client, "pwd; echo $A$TERM", **how))
    assert over["out"].decode() == f"{tmp_path}\nb c\n"


def test_wrong_signals_and_sizes_and_programs(client: Client) -> None:
    pid = client.call("qga-exec", path="cat")["pid"]
    for wrong in ("FOO", 0, 1000, -1, ""):
        with refused(f"invalid signal '{wrong}'; use a name such as INT or a number"):
            client.call("qga-exec-signal", pid=pid, signal=wrong)
    with refused(f"PID {pid} has no terminal"):
        client.call("qga-exec-resize", pid=pid, rows=1, columns=1)
    with refused("Parameter 'after' is for the end of what comes from a port"):
        client.call("qga-exec-write", pid=pid, eof=True, after=1)
    client.call("qga-exec-signal", pid=pid, signal="INT")
    assert ended(client, pid)["signal"] == 2
    with refused(f"PID {pid} has ended already"):
        client.call("qga-exec-signal", pid=pid, signal="INT")
    for command in ("qga-exec-read", "qga-exec-write", "qga-exec-signal", "qga-exec-resize"):
        more = {"signal": 1} if "signal" in command else {}
        more = {"rows": 1, "columns": 1} if "resize" in command else more
        with refused("PID 1 does not exist"):
            client.call(command, pid=1, **more)


def test_programs_of_guest_exec_are_not_ours(client: Client) -> None:
    pid = client.call("guest-exec", path="true")["pid"]
    with refused(f"PID {pid} does not exist"):
        client.call("qga-exec-read", pid=pid)


def test_the_number_of_finished_programs_is_limited(client: Client) -> None:
    first = start(client, "exit")
    ended(client, first)
    for pid in [start(client, "exit") for _ in range(256)]:
        ended(client, pid)
    with refused(f"PID {first} does not exist"):
        client.call("qga-exec-read", pid=first)


def test_the_output_of_finished_programs_is_limited(client: Client) -> None:
    script = "head -c 200000 /dev/zero"
    pids = [start(client, script) for _ in range(90)]
    for pid in pids[-80:]:
        assert len(ended(client, pid)["out"]) == 200_000
    known = [pid for pid in pids if is_known(client, pid)]
    assert 70 < len(known) < 85, "16 MiB"


def test_output_that_was_fetched_is_not_kept(client: Client) -> None:
    pids = []
    for _ in range(90):
        pids.append(start(client, "head -c 200000 /dev/zero"))
        seen(client, pids[-1], offset=len(ended(client, pids[-1])["out"]))
    assert all(is_known(client, pid) for pid in pids)


def is_known(client: Client, pid: int) -> bool:
    try:
        return bool(client.call("qga-exec-read", pid=pid))
    except Refused:
        return False


def test_rules_for_programs_hold(tmp_path: Path) -> None:
    config = "[exec]\nallow=/usr/bin/env\n[limits]\nchildren=1\n"
    with listening(tmp_path, config=config) as agent, agent.connect() as client:
        pid = client.call("qga-exec", path="env", env=["A=b"], term="x")["pid"]
        names = {line.split(b"=")[0] for line in ended(client, pid)["out"].split()}
        assert not names & {b"A", b"TERM"}
        refusal = "Command qga-exec has been refused: the program 'sh'"
        with refused(f"{refusal} is not in [exec] allow of {tmp_path}/qemu-ga.conf"):
            client.call("qga-exec", path="sh")
        assert "runs in the agent's own directory" in client.refusal(
            "qga-exec", path="env", directory="/"
        )


def test_a_terminal_belongs_to_the_user_of_the_program(tmp_path: Path) -> None:
    with listening(tmp_path, config="[exec]\nuser=nobody\n") as agent, agent.connect() as client:
        pid = start(client, "id -un; stat -c %U $(tty); echo again >$(tty)", tty=True)
        assert ended(client, pid)["out"] == b"nobody\r\nnobody\r\nagain\r\n"


def test_the_number_of_programs_is_limited(tmp_path: Path) -> None:
    with listening(tmp_path, config="[limits]\nchildren=1\n") as agent, agent.connect() as client:
        pid = start(client, "cat")
        with refused("1 program is running already; wait for one to end"):
            client.call("qga-exec", path="true")
        bring(client, pid, b"", eof=True)
        ended(client, pid)
        assert ended(client, start(client, "exit 6"))["exitcode"] == 6


def test_blocking_guest_exec_blocks_qga_exec(tmp_path: Path) -> None:
    config = "[general]\nblock-rpcs=guest-exec\n"
    with listening(tmp_path, config=config) as agent, agent.connect() as client:
        reason = "Command qga-exec has been disabled: the command is not allowed"
        with refused(reason):
            client.call("qga-exec", path="true")


def test_a_program_does_not_disturb_guest_exec(client: Client) -> None:
    pid = start(client, "cat")
    assert run(client, "true")["exitcode"] == 0
    client.call("qga-exec-signal", pid=pid, signal="KILL")
    ended(client, pid)
