"""Faults that must not end the agent, block it, or use up its memory."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.agent_process import (
    PATIENCE,
    AgentProcess,
    Client,
    listening,
    refused_start,
    request,
    start,
    wait_for,
)
from tests.integration.gates import Gate, with_gates
from tests.integration.test_extreme_values import HARMLESS, NOBODY

MB = 1024 * 1024

RAISERS = '''
import asyncio, os
from qga import CommandGroup, QgaError, command

class Unsayable(Exception):
    def __str__(self):
        raise RuntimeError("no text")

class Raisers(CommandGroup):
    """Commands that raise what they should not."""

    @command(blocking=False)
    def qga_interrupt(self) -> None:
        raise KeyboardInterrupt

    @command(blocking=True)
    def qga_interrupt_on_a_thread(self) -> None:
        raise KeyboardInterrupt

    @command(blocking=False)
    def qga_cancel(self) -> None:
        raise asyncio.CancelledError

    @command(blocking=True)
    def qga_cancel_on_a_thread(self) -> None:
        raise asyncio.CancelledError

    @command(blocking=False)
    def qga_no_text(self) -> None:
        raise QgaError(ValueError("not a text"))

    @command(blocking=True)
    def qga_unsayable(self) -> None:
        raise Unsayable

    @command(blocking=False)
    def qga_not_a_number(self) -> float:
        return float("nan")

    @command(blocking=False)
    def qga_infinite(self) -> list:
        return [float("inf")]

    @command(blocking=False)
    def qga_break_the_loop(self) -> None:
        os.close(self.agent.loop._epoll.fileno())
'''


def configure_raisers(folder: Path) -> str:
    """Write the plugin; returns the agent's configuration."""
    plugins = folder / "plugins"
    plugins.mkdir(mode=0o755)
    (plugins / "raisers.py").write_text(RAISERS)
    (plugins / "raisers.py").chmod(0o644)
    return f"[general]\nplugin-dir={plugins}\n"


@contextmanager
def with_raisers(folder: Path, **how: Any) -> Iterator[AgentProcess]:
    with listening(folder, config=configure_raisers(folder), **how) as agent:
        yield agent


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("qga-interrupt", "KeyboardInterrupt"),
        ("qga-interrupt-on-a-thread", "KeyboardInterrupt"),
        ("qga-cancel", "CancelledError"),
        ("qga-cancel-on-a-thread", "CancelledError"),
        ("qga-no-text", "not a text"),
        ("qga-unsayable", "Unsayable"),
        ("qga-not-a-number", "ValueError"),
        ("qga-infinite", "failed"),
    ],
)
def test_whatever_a_plugin_raises_is_an_error_reply(
    tmp_path: Path, command: str, reason: str
) -> None:
    with with_raisers(tmp_path) as agent, agent.connect() as client:
        assert reason in client.refusal(command)
        assert client.call("guest-ping") == {}


def test_children_are_waited_for_where_the_starter_ignored_them(tmp_path: Path) -> None:
    ignoring = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
    launcher = [sys.executable, "-c", f"{ignoring}; os.execv(sys.argv[1], sys.argv[1:])"]
    with listening(tmp_path, launcher=launcher) as agent, agent.connect() as client:
        pid = client.call("guest-exec", path="sh", arg=["-c", "exit 7"])["pid"]
        status = wait_for(lambda: finished(client, pid), "the end of the child")
        assert status["exitcode"] == 7


def finished(client: Client, pid: int) -> dict[str, object] | None:
    status: dict[str, object] = client.call("guest-exec-status", pid=pid)
    return status if status["exited"] else None


def test_a_program_that_takes_long_to_start_blocks_nobody(tmp_path: Path) -> None:
    """exec(2) of a file under a write lease waits until the lease is given up."""
    program = tmp_path / "leased"
    program.write_text("#!/bin/sh\nexit 5\n")
    program.chmod(0o755)
    previous = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        with (
            listening(tmp_path) as agent,
            agent.connect() as waiting,
            agent.connect() as other,
            program.open("r") as lease,
        ):
            fcntl.fcntl(lease, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            waiting.send(request("guest-exec", path=str(program)))
            wait_for(lambda: is_breaking(lease.fileno()), "the lease is asked back")
            assert other.call("guest-ping") == {}
            assert not waiting.has_data()
            fcntl.fcntl(lease, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            pid = waiting.result()["pid"]
            status = wait_for(lambda: finished(waiting, pid), "the end of the program")
            assert status["exitcode"] == 5
    finally:
        signal.signal(signal.SIGIO, previous)


def is_breaking(fd: int) -> bool:
    """Whether another process waits for the write lease on `fd`, so that the kernel weakens it."""
    return fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_WRLCK


def test_standard_error_that_nobody_reads_blocks_nobody(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    unread = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    launcher = ["sh", "-c", 'exec "$@" 2>"$0"', str(pipe)]
    try:
        with with_raisers(tmp_path, launcher=launcher) as agent, agent.connect() as client:
            for _ in range(300):  # each logs a traceback
                assert "KeyboardInterrupt" in client.refusal("qga-interrupt")
            assert agent.stop() == 0
    finally:
        os.close(unread)


def test_requests_that_fail_do_not_stay_in_memory(tmp_path: Path) -> None:
    big = "a" * (20 * MB)
    failing = [
        f'{{"execute":"guest-ping","id":nonsense,"arguments":"{big}"}}\n'.encode(),
        f'{{"execute":"guest-ping","id":"\\x","arguments":"{big}"}}\n'.encode(),
        request("guest-exec", path="/does/not/exist", input_data=big),
        request("guest-file-write", handle=1, buf_b64=big),
        request("guest-exec", path="true", input_data=big + "!"),
    ]
    with listening(tmp_path) as agent, agent.connect() as client:
        for message in failing:
            client.send(message)
            assert "error" in client.reply()
        before = agent.memory("VmRSS")
        for message in failing * 2:
            client.send(message)
            assert "error" in client.reply()
        assert agent.memory("VmRSS") < before + 100 * MB  # malloc keeps some; ten messages are 200


def test_a_client_that_left_much_behind_a_command_that_hangs_takes_no_place(
    tmp_path: Path,
) -> None:
    gate = Gate(tmp_path / "gate")
    with with_gates(tmp_path, "max-clients=2\n") as agent:
        for _ in range(2):
            with agent.connect() as client:
                client.send(gate.request + request("guest-ping") * 5000)
        gate.wait_until_reached()
        with agent.connect() as client:
            assert client.call("guest-ping") == {}
        gate.open_for_all()


def test_a_second_signal_does_not_cut_the_end_short(tmp_path: Path) -> None:
    with listening(tmp_path) as agent:
        until = time.monotonic() + 10
        while agent.process.poll() is None and time.monotonic() < until:
            agent.process.send_signal(signal.SIGTERM)
        assert agent.process.wait(10) == 0
        assert not agent.path.exists()


def test_a_signal_that_the_starter_blocked_ends_it_all_the_same(tmp_path: Path) -> None:
    blocking = "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {15})"
    launcher = [sys.executable, "-c", f"{blocking}; os.execv(sys.argv[1], sys.argv[1:])"]
    with listening(tmp_path, launcher=launcher) as agent:
        assert agent.stop() == 0


def test_a_pid_file_that_is_not_a_file_stays_as_it_is(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert "not a regular file" in refused_start(tmp_path, "-f", str(fifo))
    assert fifo.is_fifo()


def test_a_state_file_that_is_a_fifo_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "qga.state")
    with listening(tmp_path) as agent, agent.connect() as client:
        assert client.call("guest-ping") == {}


def test_a_log_file_that_is_a_fifo_without_a_reader_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    assert "No such device or address" in refused_start(tmp_path, "-l", str(tmp_path / "log"))


def test_a_plugin_that_is_a_fifo_is_left_out(tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir(mode=0o755)
    os.mkfifo(plugins / "odd.py", 0o644)
    with listening(tmp_path, config=f"[general]\nplugin-dir={plugins}\n") as agent:
        agent.wait_for_log("odd.py is neither a regular file nor a directory")


@pytest.mark.parametrize("kind", ["a file", "/dev/null"])
def test_what_cannot_be_a_channel_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    path.touch()
    place = "/dev/null" if kind == "/dev/null" else path
    complaint = refused_start(tmp_path, method="virtio-serial", path=place)
    assert f"error opening channel '{place}': not a port or serial line" in complaint


def test_verbose_tells_of_all_commands_who_asked_and_no_secrets(tmp_path: Path) -> None:
    with listening(tmp_path, "-v") as agent, agent.connect() as client:
        client.call("guest-exec", path="true", arg=["shown"], env=["TOKEN=secret"])
        client.refusal("guest-file-close", handle=1)
        client.refusal("guest-ping", password="secret")
        client.refusal("guest-secret\nqemu-ga: error: forged")
        client.refusal("guest-" + "x" * 5000)
        agent.wait_for_log("guest-secret\\nqemu-ga: error: forged refused: The command")
        agent.wait_for_log("guest-xxx")
        assert max(map(len, agent.log.splitlines())) < 1000
        who = f"channel main (pid {os.getpid()}, uid {os.getuid()}): "
        assert "channel main: read data: guest-exec\n" in agent.log
        hidden = '{"path":"true","arg":["shown"],"env":["TOKEN=(hidden)"]}'
        assert f"{who}guest-exec {hidden}: done (" in agent.log
        assert f"{who}guest-file-close {{\"handle\":1}}: failed: handle '1' has not" in agent.log
        assert f"warning: {who}guest-ping refused: invalid arguments\n" in agent.log
        assert agent.log.replace("guest-secret", "").count("secret") == 0


def test_verbose_tells_of_all_that_was_read_once(tmp_path: Path) -> None:
    commands = ("guest-exec", "guest-get-osinfo", "guest-get-fsinfo", "guest-set-vcpus")
    with listening(tmp_path, "-v") as agent, agent.connect() as client:
        for name in commands:
            client.send(request(name, path="true") if name == "guest-exec" else request(name))
            client.reply()
        client.send(b'\n{secret}\n{"secret": 1, "execute": 2}\n')
        client.replies(2)
        agent.wait_for_log("QMP input member …\n")
        read = re.findall(r"channel main: read data: (.*)\n", agent.log)
        assert read[-len(commands) - 2 :] == [
            *commands,
            "not a request: 2:2: JSON parse error, expecting key",
            "not a request: QMP input member …",
        ]


def test_without_verbose_changes_and_refusals_are_logged(tmp_path: Path) -> None:
    with listening(tmp_path) as agent, agent.connect() as client:
        client.call("guest-exec", path="true")
        client.refusal("guest-file-close", handle=1)
        client.refusal("guest-nothing")
        agent.wait_for_log("guest-nothing refused: The command guest-nothing has not been")
        executed, refused = agent.log.splitlines()
        assert 'guest-exec {"path":"true"}: done' in executed
        assert "guest-nothing refused" in refused


@pytest.mark.parametrize("options", [(), ("-d",)])
@pytest.mark.parametrize("descriptors", [5, 7, 8])  # 6 are too few for Python
def test_without_descriptors_it_does_not_start(
    tmp_path: Path, descriptors: int, options: tuple[str, ...]
) -> None:
    launcher = ["prlimit", f"--nofile={descriptors}:{descriptors}"]
    said = refused_start(tmp_path, *options, launcher=launcher)
    assert "Too many open files" in said
    assert said.endswith("qemu-ga: error: error initializing guest agent\n")


def test_if_its_loop_fails_the_log_has_the_traceback(tmp_path: Path) -> None:
    agent = start(tmp_path, config=configure_raisers(tmp_path))
    try:
        agent.wait_for_socket()
        with agent.connect() as client:
            client.send(request("qga-break-the-loop"))
            assert agent.process.wait(PATIENCE) == 1
    finally:
        agent.stop()
    assert "error in the loop:" in agent.log
    assert "Traceback" in agent.log
    assert "cannot start" not in agent.log
    assert agent.log.endswith("qemu-ga: error: ended with an error: Bad file descriptor\n")


def test_a_file_of_its_own_that_it_may_not_remove_is_named(tmp_path: Path) -> None:
    """As on a filesystem that has become read-only."""
    place = tmp_path / "run"
    place.mkdir()
    for folder in (tmp_path, place):
        os.chown(folder, NOBODY, NOBODY)
    pid_file = place / "pid"
    agent = start(tmp_path, "-f", str(pid_file), launcher=HARMLESS)
    try:
        agent.wait_for_socket()
        place.chmod(0o555)
        agent.process.terminate()
        assert agent.process.wait(PATIENCE) == 1
    finally:
        agent.stop()
    assert "Traceback" not in agent.log
    assert f"error: ended with an error: '{pid_file}': Permission denied\n" in agent.log
    assert not agent.path.exists()
