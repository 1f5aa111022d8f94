"""Data ports between programs of the guest and of the host, and files sent through them."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .agent_socket import AgentError, AgentSocket, encode
from .data_port import MIB, OTHER_PORT, PORT, Link, result, state_of_port, wait_until_free
from .image import CHECKOUT
from .service import port_device, wait_for
from .vm import SPARE_PORT, Guest, Port

# The first test may have to build the image.
pytestmark = pytest.mark.timeout(900)

EXAMPLES = CHECKOUT / "examples/ports"
QGACTL = [sys.executable, "-c", "from qga.ctl.main import main; main()"]


# Programs of our own: the examples, and qgactl.


@contextmanager
def in_guest(guest: Guest, unit: str, script: str, *arguments: str) -> Iterator[None]:
    """A Python script running in the guest, with qga to import."""
    path = f"/run/{unit}.py"
    guest.write_file(path, script)
    options = [f"--unit={unit}", "--setenv=PYTHONPATH=/opt/qga", "--collect"]
    guest.run(["systemd-run", *options, "/usr/bin/python3", path, *arguments])
    try:
        yield
    finally:
        guest.run(["systemctl", "stop", unit], check=False)


@contextmanager
def on_host(argv: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A program of the host, with pipes."""
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe) as program:
        try:
            yield program
        finally:
            program.kill()


def test_greetings_of_the_example(guest: Guest, agent: AgentSocket) -> None:
    script = (EXAMPLES / "guest_greetings.py").read_text()
    show = [sys.executable, str(EXAMPLES / "host_print.py"), guest.channel_path(PORT)]
    with in_guest(guest, "greetings", script, PORT.name):
        numbers = []
        for _ in range(2):  # it goes on when the host comes back
            with on_host(show) as host:
                assert host.stdout
                lines = [host.stdout.readline().decode() for _ in range(2)]
            assert all(line.startswith("Hello, host! This is greeting ") for line in lines)
            numbers += [int(line.split()[-1].rstrip(".")) for line in lines]
        assert numbers == sorted(set(numbers))
        assert state_of_port(agent)["busy"]
    assert not state_of_port(agent)["busy"]


def test_message_of_the_example(guest: Guest) -> None:
    script = (EXAMPLES / "guest_message.py").read_text()
    show = [sys.executable, str(EXAMPLES / "host_message.py"), guest.channel_path(PORT)]
    with (
        in_guest(guest, "message", script, PORT.name, "The backup is done."),
        on_host(show) as host,
    ):
        output, _ = host.communicate(timeout=60)
    assert (host.returncode, output) == (0, b"The backup is done.\n")


ECHO = """
import sys
from qga import ports
with ports.open_port(sys.argv[1]) as port:
    port.wait_for_host()
    while (data := port.read(4096)):
        port.write(data.upper())
"""


def test_qgactl_sends_and_prints(guest: Guest, agent: AgentSocket) -> None:
    argv = [*QGACTL, "port", "connect", guest.channel_path(PORT)]
    with in_guest(guest, "echo", ECHO, PORT.name), on_host(argv) as host:
        assert host.stdin
        assert host.stdout
        host.stdin.write(b"raw \xff bytes\n")
        host.stdin.flush()
        assert host.stdout.readline() == b"RAW \xff BYTES\n"
        host.stdin.close()
        assert state_of_port(agent)["host-connected"]
        host.kill()
        wait_until_free(agent)  # the program has read its end


def test_qgactl_waits_until_all_is_taken(guest: Guest, agent: AgentSocket) -> None:
    keep = ECHO.replace("port.write(data.upper())", "open('/run/kept', 'ab').write(data)")
    guest.run(["rm", "-f", "/run/kept"])
    content = random.Random(1).randbytes(MIB)
    with in_guest(guest, "keep", keep, PORT.name):
        argv = [*QGACTL, "port", "connect", "--end", guest.channel_path(PORT)]
        done = subprocess.run(argv, input=content, check=True, capture_output=True, timeout=60)
        assert done.stdout == done.stderr == b""
        wait_until_free(agent)
    wanted = hashlib.sha256(content).hexdigest()
    assert agent.execute("qga-file-checksum", path="/run/kept") == {"count": MIB, "sha256": wanted}


def test_a_port_that_is_busy_or_missing_says_so(guest: Guest, agent: AgentSocket) -> None:
    script = "from qga import ports; import sys; ports.open_port(sys.argv[1]).wait_for_host(99)"
    with in_guest(guest, "holder", script, PORT.name), Link(guest, OTHER_PORT):
        wait_for(lambda: state_of_port(agent)["busy"], "the port to be taken")
        with pytest.raises(
            AgentError, match=rf"cannot open .*{PORT.name}.*: python3 \(process \d+"
        ):
            agent.execute("qga-file-send", path="/etc/hostname", port=PORT.name)
    with pytest.raises(AgentError, match=f"no port 'none': this guest has .*{OTHER_PORT.name}"):
        agent.execute("qga-file-send", path="/etc/hostname", port="none")


def test_a_port_without_a_host_is_not_used(guest: Guest, agent: AgentSocket) -> None:
    guest.run(["rm", "-f", "/run/untouched"])
    with pytest.raises(AgentError, match="the host is not connected to the port"):
        agent.execute("qga-file-receive", path="/run/untouched", port=PORT.name, count=1)
    assert guest.run(["test", "-e", "/run/untouched"], check=False).status == 1
    assert not state_of_port(agent)["busy"]


@contextmanager
def plugged(guest: Guest, port: Port) -> Iterator[None]:
    guest.plug_port(port)
    try:
        with Link(guest, port):
            yield
    finally:
        guest.unplug_port(port)


def test_a_port_in_the_place_of_another_is_not_taken_for_it(
    guest: Guest, agent: AgentSocket
) -> None:
    """A port is found again by its file in sysfs, which is open then."""

    def send(port: Port) -> None:
        agent.execute("qga-file-send", path="/etc/hostname", port=port.name)

    first, second = (SPARE_PORT._replace(name=f"org.qga.{name}") for name in ("first", "second"))
    devices = []
    for port, other in ((first, second), (second, first), (first, second)):
        with plugged(guest, port):
            wait_for(lambda: port.name in names_of_ports(agent), "the port")  # noqa: B023
            send(port)
            send(port)
            devices.append(port_device(guest, port))
            with pytest.raises(AgentError, match=f"no port '{other.name}'"):
                send(other)
    assert len(set(devices)) == 1, "they were to have the same device"
    with pytest.raises(AgentError, match=f"no port '{first.name}'"):
        send(first)


def names_of_ports(agent: AgentSocket) -> set[str]:
    return {port["name"] for port in agent.execute("qga-get-ports")}


# Files.


def test_64_mib_both_ways(guest: Guest, agent: AgentSocket) -> None:
    path, content = "/var/tmp/big", random.Random(2).randbytes(64 * MIB)
    wanted = {"count": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    agent.timeout = 300
    with Link(guest) as link:
        agent.send(encode("qga-file-receive", {**on(PORT, path), "count": len(content)}))
        link.send(content)
        assert result(agent) == wanted
    with Link(guest) as link:
        agent.send(encode("qga-file-send", on(PORT, path)))
        came = link.take(len(content))
        assert result(agent) == wanted
    assert came == content
    guest.run(["rm", path])


def on(port: Port, path: str) -> dict[str, Any]:
    return {"path": path, "port": port.name}


def received(guest: Guest) -> int:
    """Bytes that the guest's kernel has ever read from the port."""
    device = os.path.basename(port_device(guest, PORT))
    shown = guest.run(["cat", f"/sys/kernel/debug/virtio-ports/{device}"]).stdout
    return int(dict(line.split(": ") for line in shown.splitlines())["bytes_received"])


def test_parts_of_a_file(guest: Guest, agent: AgentSocket) -> None:
    path = "/run/parts"
    guest.write_file(path, "0123456789")
    with Link(guest) as link:
        sent = agent.execute("qga-file-send", **on(PORT, path), offset=2, count=3)
        assert (sent["count"], link.take(3)) == (3, b"234")
    with Link(guest) as link:
        link.send(b"abc")
        assert agent.execute("qga-file-receive", **on(PORT, path), offset=8, count=3)["count"] == 3
    assert guest.run(["cat", path]).stdout == "01234567abc"


def test_a_host_that_leaves_breaks_off_what_it_sends(guest: Guest, agent: AgentSocket) -> None:
    path, before = "/run/cut", received(guest)
    with Link(guest) as link:
        agent.send(encode("qga-file-receive", {**on(PORT, path), "count": 100_000}))
        link.send(bytes(30_000))
        wait_for(lambda: received(guest) == before + 30_000, "the guest to have read")
    with pytest.raises(AgentError, match="interrupted after 30000 bytes: the host disconnected"):
        result(agent)
    assert guest.run(["stat", "--format=%s", path]).stdout == "30000\n"
    assert not state_of_port(agent)["busy"]


def test_a_host_that_leaves_breaks_off_what_it_is_sent(guest: Guest, agent: AgentSocket) -> None:
    guest.run(["truncate", "--size=1G", "/run/zeros"])
    with Link(guest) as link:
        agent.send(encode("qga-file-send", on(PORT, "/run/zeros")))
        link.take(10 * MIB)
    with pytest.raises(AgentError, match=r"interrupted after \d+ bytes: the host is not connected"):
        result(agent)
    assert not state_of_port(agent)["busy"]
