"""qgactl loses nothing that it prints, or says so, whatever its output is connected to."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import subprocess
import termios
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from qga.client.conversion import encode_base64
from qga.client.results import SIGNAL_STATUS
from qga.tunnels.frames import DATA, OPENED, frame
from tests.integration.agent_process import AgentProcess, wait_for
from tests.integration.qgactl_process import QGACTL, environment
from tests.unit.client_peer import Peer

SIZE = 1_000_000

TUNNEL: dict[str, Any] = {
    "qga-get-ports": lambda _: [],
    "qga-tunnel": lambda _: {"tunnel": 1},
    "qga-tunnel-exchange": lambda _: {},
    "qga-tunnel-close": lambda _: {},
}

FULL = "qgactl: standard output: No space left on device\n"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    file = tmp_path / "large"
    file.write_bytes(b"x" * SIZE)
    return file


def start(agent: AgentProcess, argv: Sequence[str], **how: Any) -> subprocess.Popen[str]:
    variables = {**environment(str(agent.path)), **how.pop("variables", {})}
    streams = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, **how}
    return subprocess.Popen([*QGACTL, *argv], text=True, env=variables, **streams)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "argv",
    [
        ["exec", "--", "cat", "LARGE"],
        ["exec", "--json", "--", "cat", "LARGE"],
        ["cat", "LARGE"],
        ["cat", "--json", "LARGE"],
    ],
    ids=" ".join,
)
def test_a_pipe_that_another_program_made_non_blocking(
    agent: AgentProcess, large: Path, argv: list[str], unbuffered: str
) -> None:
    words = [word.replace("LARGE", str(large)) for word in argv]
    variables = {"PYTHONUNBUFFERED": unbuffered}
    expected = subprocess.run(
        [*QGACTL, *words],
        capture_output=True,
        check=True,
        env={**environment(str(agent.path)), **variables},
    ).stdout
    reading, writing = os.pipe()
    capacity = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    with start(agent, words, stdout=writing, variables=variables) as process:
        os.close(writing)
        if len(expected) > capacity:
            wait_for(lambda: unread(reading) == capacity, "the pipe is full")
        with open(reading, "rb") as output:
            assert output.read() == expected
        assert ended(process) == (0, "")


def unread(pipe: int) -> int:
    count = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    return int.from_bytes(count, "little")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["exec", "--", "cat", "LARGE"], 125),
        (["exec", "--json", "--", "cat", "LARGE"], 125),
        (["cat", "LARGE"], 1),
        (["cat", "--json", "LARGE"], 1),
    ],
    ids=str,
)
def test_a_file_that_takes_a_part_only(
    agent: AgentProcess,
    large: Path,
    tmp_path: Path,
    argv: list[str],
    status: int,
    unbuffered: str,
) -> None:
    words = [word.replace("LARGE", str(large)) for word in argv]
    limit = (SIZE // 3, SIZE // 3)
    with (tmp_path / "output").open("wb") as output:
        process = start(
            agent,
            words,
            stdout=output,
            variables={"PYTHONUNBUFFERED": unbuffered},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
        )
        assert ended(process) == (status, "qgactl: standard output: File too large\n")


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["exec", "--", "echo", "hi"], 125),
        (["exec", "--json", "--", "echo", "hi"], 125),
        (["cat", "LARGE"], 1),
        (["info"], 1),
        (["check", "--memory", "100%"], 3),
        (["--help"], 1),
    ],
    ids=str,
)
def test_a_full_disk(agent: AgentProcess, large: Path, argv: list[str], status: int) -> None:
    words = [word.replace("LARGE", str(large)) for word in argv]
    with open("/dev/full", "wb") as full:
        assert ended(start(agent, words, stdout=full)) == (status, FULL)


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["ping", "/no/socket"], 3),
        (["exec", "/no/socket", "--", "true"], 125),
        (["exec", "--", "sh", "-c", "echo lost >&2; exit 5"], 125),
        (["exec", "--timeout", "0.1", "--", "sleep", "60"], 124),
        (["no-such-command"], 2),
        (["cat", "/no/file"], 1),
    ],
    ids=str,
)
def test_an_error_that_cannot_be_reported(
    agent: AgentProcess, argv: list[str], status: int
) -> None:
    with open("/dev/full", "wb") as full:
        process = start(agent, argv, stdout=subprocess.DEVNULL, stderr=full)
        assert process.wait(60) == status


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_error_for_a_pipe_that_another_program_made_non_blocking(
    agent: AgentProcess, unbuffered: str
) -> None:
    reading, writing = os.pipe()
    capacity = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    words, variables = ["cat", f"/{'x' * capacity}"], {"PYTHONUNBUFFERED": unbuffered}
    expected = ended(start(agent, words))
    with start(agent, words, stderr=writing, variables=variables) as process:
        os.close(writing)
        wait_for(lambda: unread(reading) == capacity, "the pipe is full")
        with open(reading) as errors:
            told = errors.read()
    assert (process.returncode, told) == expected


@contextmanager
def service() -> Iterator[tuple[Path, socket.socket]]:
    """A service for one client, and its path."""
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(60)
        listener.bind(f"{folder}/service")
        listener.listen()
        yield Path(folder, "service"), listener


def test_a_proxy_whose_input_is_non_blocking(agent: AgentProcess) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with service() as (path, listener), open(writing, "wb", buffering=0) as typed:
        process = start(agent, ["proxy", str(path)], stdin=reading, stdout=subprocess.PIPE)
        os.close(reading)
        client = listener.accept()[0]
        client.sendall(b"ready\n")
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        typed.write(b"hello")
        assert client.recv(100) == b"hello"
        client.close()
        assert ended(process) == (0, "")


def test_a_proxy_whose_input_cannot_be_read(agent: AgentProcess) -> None:
    """It ends, although the service waits for more."""
    with service() as (path, listener), open("/dev/null", "wb") as unreadable:
        process = start(agent, ["proxy", str(path)], stdin=unreadable)
        client = listener.accept()[0]
        assert ended(process) == (1, "qgactl: standard input: Bad file descriptor\n")
        client.close()


def test_a_proxy_whose_output_nobody_reads(tmp_path: Path) -> None:
    """It ends its tunnel in the guest, which has no port whose end would tell the agent."""
    data = frame(1, OPENED, b"\0\0\1\0") + frame(1, DATA, b"x" * 1000)
    handlers: dict[str, Any] = {
        **TUNNEL,
        "qga-connect": lambda _: {"connection": 1},
        "qga-tunnel-exchange": lambda _: {"data": encode_base64(data)},
    }
    with closing(Peer(tmp_path / "socket", handlers)) as peer:
        with subprocess.Popen(
            [*QGACTL, "proxy", "22"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(peer.address),
        ) as process:
            assert process.stdout
            process.stdout.close()
            assert process.stderr
            assert process.stderr.read() == b""
        assert process.returncode == SIGNAL_STATUS + signal.SIGPIPE
    assert [request["execute"] for request in peer.requests][-1] == "qga-tunnel-close"


def test_a_forward_goes_on_though_nobody_reads_its_notes(tmp_path: Path) -> None:
    place = str(tmp_path / "forwarded")
    refused = {"qga-connect": lambda _: RuntimeError("GenericError", "no")}
    with (
        closing(Peer(tmp_path / "socket", {**TUNNEL, **refused})) as peer,
        subprocess.Popen(
            [*QGACTL, "forward", f"{place}:22"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(peer.address),
        ) as process,
    ):
        assert process.stdout
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr
        process.stderr.close()
        try:
            for _ in range(3):
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(place)
                    assert client.recv(1) == b""
        finally:
            process.terminate()
    assert process.returncode == SIGNAL_STATUS + signal.SIGTERM
    assert not os.path.exists(place)
