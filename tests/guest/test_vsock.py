"""An agent on a real vsock device: the library and qgactl from the host, and data ports."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qga.client import AgentError, ConnectError, GuestAgent
from qga.client.copies.copying import copy_from, copy_to
from qga.client.data_ports import DataPorts
from qga.client.programs import start_streamed
from tests.integration.qgactl_process import QGACTL, environment, qgactl

from .service import by_hand, main_pid, open_files, wait_for, wait_until_quiet
from .vsock import VsockGuest

pytestmark = pytest.mark.timeout(900)

PORT = 4321
MIB = 1 << 20
# Connects from within the guest to a port, says what it was told to, and tells what came of it.
STRANGER = """
import socket, sys
with socket.socket(socket.AF_VSOCK) as stranger:
    stranger.settimeout(30)
    stranger.connect((1, int(sys.argv[1])))
    try:
        stranger.sendall(sys.argv[2].encode() + b"\\n")
        print(stranger.recv(100))
    except ConnectionError:
        print(b"")
"""


# Stands in for Cloud Hypervisor, which needs KVM: its socket leads to that of the device, and its
# port 1234 to the agent's.
MONITOR = """
import asyncio, sys

async def pass_on(source, sink):
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    sink.close()

async def serve(reader, writer):
    port = int((await reader.readline()).split()[1])
    device = await asyncio.open_unix_connection(sys.argv[1])
    device[1].write(b"CONNECT %d\\n" % (PORT if port == 1234 else port))
    await asyncio.gather(pass_on(device[0], writer), pass_on(reader, device[1]))

async def main():
    path = sys.argv[3].partition("socket=")[2]
    await (await asyncio.start_unix_server(serve, path)).serve_forever()

asyncio.run(main())
""".replace("PORT", str(PORT))


@pytest.fixture(scope="module")
def unit(guest: VsockGuest) -> Iterator[str]:
    """The unit of an agent that listens on vsock, beside the usual one."""
    guest.run(["mkdir", "-p", "/run/vsock-agent"])
    with by_hand(guest, "-m", "vsock-listen", "-p", f"-1:{PORT}", "-t", "/run/vsock-agent") as unit:
        guest.dial_agent(PORT).close()
        yield unit


@pytest.fixture
def agent(guest: VsockGuest, unit: str) -> Iterator[GuestAgent]:
    with GuestAgent(guest.vsock_address(PORT), 60) as agent:
        yield agent


@pytest.fixture
def nothing_left(guest: VsockGuest, unit: str) -> Iterator[None]:
    """The agent has no more files open after the test than before, and rests."""
    pid = main_pid(guest, unit)
    before = len(open_files(guest, pid))
    yield
    wait_for(lambda: len(open_files(guest, pid)) <= before, "the agent to close everything")
    wait_until_quiet(guest, pid)


def test_the_library_reaches_it(agent: GuestAgent) -> None:
    assert agent.hostname() == "guest"


@pytest.mark.usefixtures("nothing_left")
def test_it_is_found_by_the_options_of_its_monitor(guest: VsockGuest, tmp_path: Path) -> None:
    """With its data ports, by the name of the socket."""
    program = tmp_path / "cloud-hypervisor"
    shutil.copy(os.path.realpath(sys.executable), program)
    path = tmp_path / f"found-{os.getpid()}.vsock"
    argv = [str(program), "-c", MONITOR, guest.vsock_path, "--vsock", f"cid=3,socket={path}"]
    with subprocess.Popen(argv, env={"PYTHONHOME": sys.base_prefix}) as monitor:
        try:
            wait_for(path.exists, "the monitor to listen")
            with GuestAgent(path.stem, 60) as agent:
                assert agent.hostname() == "guest"
                port = DataPorts(path.stem).open_free(agent)
                assert port
                assert port.name.startswith("vsock:")
                port.close()
        finally:
            monitor.kill()


@pytest.mark.usefixtures("unit")
def test_nobody_listens(guest: VsockGuest) -> None:
    with pytest.raises(ConnectError, match="nothing listens on this port: start an agent in the"):
        GuestAgent(guest.vsock_address(PORT + 1), 60).__enter__()


def test_files_pass_through_data_ports(
    guest: VsockGuest, agent: GuestAgent, nothing_left: None, tmp_path: Path
) -> None:
    files = {f"file{number}": os.urandom(size) for number, size in enumerate((16 * MIB, MIB + 1))}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    guest.run(["mkdir", "/var/tmp/by-vsock"])
    try:
        sent = copy_to(agent, [str(tmp_path / name) for name in files], "/var/tmp/by-vsock")
        assert str(sent.port).startswith("vsock:")
        back = tmp_path / "back"
        got = copy_from(agent, ["/var/tmp/by-vsock"], str(back), recursive=True)
        assert str(got.port).startswith("vsock:")
        assert {each.name: each.read_bytes() for each in back.iterdir()} == files
        sums = guest.run(["sha256sum", *(f"/var/tmp/by-vsock/{name}" for name in files)]).stdout
        assert sums.split()[::2] == [hashlib.sha256(each).hexdigest() for each in files.values()]
    finally:
        guest.run(["rm", "-r", "/var/tmp/by-vsock"])


def test_a_program_has_its_input_and_output_through_one(
    guest: VsockGuest, unit: str, nothing_left: None
) -> None:
    content = os.urandom(8 * MIB)
    done = subprocess.run(
        [*QGACTL, "exec", "--", "sh", "-c", "sha256sum; head -c 8388608 /dev/zero; exit 7"],
        input=content,
        capture_output=True,
        env=environment(guest.vsock_address(PORT)),
        timeout=300,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    digest = hashlib.sha256(content).hexdigest().encode() + b"  -\n"
    assert done.stdout == digest + bytes(8 * MIB)


def test_a_program_ends_when_the_host_hangs_up(
    guest: VsockGuest, agent: GuestAgent, nothing_left: None
) -> None:
    ports = DataPorts(agent.address)
    program = start_streamed(agent, ["/bin/sh", "-c", "echo $$; exec sleep 1000"], ports)
    assert program.port
    pid = wait_for(program.receive, "its output").decode().strip()
    program.port.close()
    gone = ["/bin/sh", "-c", f"test ! -e /proc/{pid}"]
    wait_for(lambda: guest.run(gone, check=False).status == 0, "the program to end")


def test_nobody_but_the_host_uses_a_port(
    guest: VsockGuest, agent: GuestAgent, nothing_left: None
) -> None:
    guest.run(["modprobe", "vsock_loopback"])
    offer = agent.open_vsock_port()
    assert guest.python(STRANGER, str(offer.port), offer.token).strip() == "b''"
    with guest.dial(offer.port) as impostor:
        impostor.sendall(b"0" * len(offer.token) + b"\n")
        assert impostor.recv(1) == b""
    with guest.dial(offer.port) as host:
        host.sendall(f"{offer.token}\n".encode())
        assert agent.file_send("/etc/hostname", offer.name, 0, 100).size == len("guest\n")
        assert host.recv(100) == b"guest\n"


def test_the_number_of_ports_of_a_channel_is_limited(agent: GuestAgent, nothing_left: None) -> None:
    for _ in range(16):
        agent.open_vsock_port()
    with pytest.raises(AgentError, match="this channel has 16 vsock ports already"):
        agent.open_vsock_port()


def test_qgactl_says_what_is_wrong(guest: VsockGuest, unit: str) -> None:
    status, _, complaint = qgactl("ping", address=guest.vsock_address(PORT + 1))
    assert (status, "nothing listens on this port" in complaint) == (3, True), complaint
    assert qgactl("ping", address=guest.vsock_address(PORT))[0] == 0
