"""Character devices as channels, with pty(7) in place of hardware.

The host has the master of a pty open, and the agent opens the slave through a link, which can be
changed to another pty. Closing the master hangs up the slave for good, like unplugging an adapter.
"""

from __future__ import annotations

import base64
import os
import random
import re
import select
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

import pytest

from tests.integration.agent_process import (
    PATIENCE,
    AgentProcess,
    Client,
    listening,
    refused_start,
    request,
    started,
    wait_for,
)


class Line:
    """The host's end of a pty, with the methods of a socket that Client needs."""

    def __init__(self) -> None:
        self._master, slave = os.openpty()
        self.device = Path(os.ttyname(slave))
        self._slave: Optional[int] = slave

    def settimeout(self, _seconds: float) -> None:
        pass

    def sendall(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            self._wait(select.POLLOUT)
            rest = rest[os.write(self._master, rest[:1024]) :]

    def recv(self, size: int) -> bytes:
        self._wait(select.POLLIN)
        return os.read(self._master, size)

    def is_readable(self) -> bool:
        return bool(select.select([self._master], [], [], 0)[0])

    def is_raw(self) -> bool:
        """Whether the slave is in raw mode."""
        assert self._slave is not None
        flags = termios.tcgetattr(self._slave)
        cooked = flags[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
        return not (cooked or flags[0] & termios.IXON)

    def make_raw(self) -> None:
        assert self._slave is not None
        tty.setraw(self._slave)

    def speed(self) -> int:
        assert self._slave is not None
        speed: int = termios.tcgetattr(self._slave)[5]
        return speed

    def close(self) -> None:
        if self._slave is not None:
            os.close(self._slave)
            os.close(self._master)
            self._slave = None

    def _wait(self, event: int) -> None:
        poll = select.poll()
        poll.register(self._master, event)
        if not poll.poll(PATIENCE * 1000):
            raise TimeoutError("the line is silent")


@contextmanager
def line_at(link: Path) -> Iterator[tuple[Line, Client]]:
    """A new pty, with `link` leading to its slave from now on."""
    line = Line()
    new = link.with_suffix(".new")
    new.symlink_to(line.device)
    new.replace(link)
    try:
        yield line, Client(line)  # type: ignore[arg-type]
    finally:
        line.close()


@pytest.fixture
def link(tmp_path: Path) -> Path:
    return tmp_path / "device"


@contextmanager
def serial_agent(link: Path, *options: str, config: str = "") -> Iterator[AgentProcess]:
    how = {"method": "isa-serial", "path": link, "config": config}
    with started(link.parent, *options, **how) as agent:
        yield agent


def test_a_serial_line_is_served(link: Path) -> None:
    with line_at(link) as (line, client), serial_agent(link) as agent:
        wait_for(lambda: line.is_raw() and agent.waits, "the line is raw")
        assert line.speed() == termios.B38400
        client.send(request("guest-sync-delimited", id=5))
        assert client.line() == b'\xff{"return": 5}\n'
        for _ in range(20):
            assert client.call("guest-ping") == {}


def test_the_speed_can_be_set(link: Path) -> None:
    config = "[general]\nbaud=115200\n"
    with line_at(link) as (line, client), serial_agent(link, config=config) as agent:
        wait_for(lambda: line.is_raw() and agent.waits, "the line is raw")
        assert line.speed() == termios.B115200
        assert client.call("guest-ping") == {}


def test_every_byte_passes_both_ways(link: Path, tmp_path: Path) -> None:
    """Control characters arrive as they are: the replies are the same as on a socket."""
    odd = b"".join(bytes([byte]) + b"\xff" for byte in range(256))
    odd += request("guest-sync-delimited", id=0xFFFF)
    end = b'\xff{"return": 65535}\n'
    with listening(tmp_path) as agent, agent.connect() as client:
        expected = lines_until(client, end, odd)
    with line_at(link) as (line, client), serial_agent(link) as agent:
        wait_for(lambda: line.is_raw() and agent.waits, "the line is raw")
        assert lines_until(client, end, odd) == expected
    assert len(expected) > 256


def lines_until(client: Client, end: bytes, requests: bytes) -> list[bytes]:
    client.send(requests)
    lines = []
    while end not in lines:
        # Without positions: they count what the channel's earlier clients have sent, too.
        lines.append(re.sub(rb'(?<="desc": ")\d+:\d+: ', b"", client.line()))
    return lines


def test_a_big_reply_comes_whole_while_more_requests_arrive(link: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(random.Random(3).randbytes(300_000))
    with line_at(link) as (line, client), serial_agent(link) as agent:
        wait_for(lambda: line.is_raw() and agent.waits, "the line is raw")
        handle = client.call("guest-file-open", path=str(file))
        client.send(request("guest-file-read", handle=handle, count=1_000_000))
        wait_for(line.is_readable, "the reply, more than fits into the line, has begun")
        for number in range(100):
            client.send(request("guest-ping", tag=number))
        assert base64.b64decode(client.result()["buf-b64"]) == file.read_bytes()
        assert [client.reply()["id"] for _ in range(100)] == list(range(100))


def test_a_big_request_comes_whole(link: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    data = random.Random(4).randbytes(300_000)
    with line_at(link) as (line, client), serial_agent(link) as agent:
        wait_for(lambda: line.is_raw() and agent.waits, "the line is raw")
        handle = client.call("guest-file-open", path=str(file), mode="w")
        client.call("guest-file-write", handle=handle, buf_b64=base64.b64encode(data).decode())
        assert file.read_bytes() == data


def test_a_line_that_was_hung_up_is_opened_again(link: Path) -> None:
    with serial_agent(link, "--retry-path") as agent:
        for times in range(1, 4):
            with line_at(link) as (line, client):
                wait_for(lambda: line.is_raw() and agent.waits, "the line is open")
                assert client.call("guest-ping") == {}
                handle = client.call("guest-file-open", path="/dev/null")
            gone = f"channel '{link}' is gone"
            wait_for(lambda: agent.log.count(gone) == times, gone)  # noqa: B023
        with line_at(link) as (line, client):
            wait_for(lambda: line.is_raw() and agent.waits, "the line is open")
            assert client.call("guest-file-read", handle=handle)["eof"] is True


def test_a_line_that_is_missing_stops_the_start(link: Path) -> None:
    complaint = refused_start(link.parent, method="isa-serial", path=link)
    assert f"error opening channel '{link}': No such file or directory" in complaint
    assert "failed to initialize guest agent channel" in complaint


@pytest.mark.parametrize("path", ["/dev/null", "/etc/passwd", "/"])
def test_what_is_not_a_serial_line_is_named(tmp_path: Path, path: str) -> None:
    complaint = refused_start(tmp_path, method="isa-serial", path=path)
    assert f"error opening channel '{path}': " in complaint
    assert "Success" not in complaint


def test_a_speed_that_cannot_be_is_named(link: Path) -> None:
    with line_at(link):
        config = f"[general]\nbaud={10**12}\n"
        complaint = refused_start(link.parent, method="isa-serial", path=link, config=config)
    assert f"error opening channel '{link}': " in complaint


def test_a_line_that_is_missing_is_waited_for(link: Path) -> None:
    with serial_agent(link, "--retry-path") as agent:
        agent.wait_for_log(f"error opening channel '{link}': No such file or directory")
        with line_at(link) as (line, client):
            wait_for(lambda: line.is_raw() and agent.waits, "the line is open")
            assert client.call("guest-ping") == {}
            agent.stop()


@contextmanager
def port_agent(link: Path, *options: str) -> Iterator[AgentProcess]:
    with started(link.parent, *options, method="virtio-serial", path=link) as agent:
        yield agent


@contextmanager
def port_at(link: Path) -> Iterator[tuple[Line, Client]]:
    with line_at(link) as (line, client):
        line.make_raw()
        yield line, client


def test_a_port_is_served(link: Path) -> None:
    with port_at(link) as (_, client), port_agent(link):
        for number in range(20):
            client.send(request("guest-ping", tag=number))
            assert client.reply() == {"return": {}, "id": number}


def test_a_port_that_is_missing_stops_the_start(link: Path) -> None:
    complaint = refused_start(link.parent, method="virtio-serial", path=link)
    assert f"error opening channel '{link}': No such file or directory" in complaint


def test_a_port_that_is_missing_is_waited_for(link: Path) -> None:
    with port_agent(link, "--retry-path") as agent:
        agent.wait_for_log(f"error opening channel '{link}': No such file or directory")
        with port_at(link) as (_, client):
            assert client.call("guest-ping") == {}
            agent.stop()


REQUEST = '{"execute":"guest-exec","arguments":{"path":"/bin/grün","arg":["1"],"x":true},"id":12}'


def bytes_read(agent: AgentProcess) -> int:
    """Bytes that the agent has read (proc_pid_io(5)): bytes on a line take a while to arrive."""
    return int(Path(f"/proc/{agent.pid}/io").read_text().split()[1])


@pytest.mark.parametrize(
    "end", ["tru", '"1"],', '"id":1', "/bin/gr\xc3", "true}", "/b", "[", '"x":']
)
def test_half_a_request_is_nothing_to_the_next_host(link: Path, end: str) -> None:
    """As on a port, where nobody sees that one client has left and another one has come."""
    whole = REQUEST.encode()
    ends = whole.index(end.encode("latin-1")) + len(end)
    with line_at(link) as (line, client), serial_agent(link) as agent:
        wait_for(lambda: line.is_raw() and agent.waits, "the line is raw")
        before = bytes_read(agent)
        client.send(whole[:ends])
        wait_for(lambda: bytes_read(agent) >= before + ends and agent.waits, "the half is read")
        client.send(request("guest-sync-delimited", id=3) + b"\n" + request("guest-ping") + b"\n")
        assert client.line() == b'\xff{"return": 3}\n'
        assert client.line() == b'{"return": {}}\n'
        assert client.call("guest-ping") == {}
        assert "dropped an incomplete request" in agent.log
