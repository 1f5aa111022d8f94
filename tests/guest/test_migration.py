"""What becomes of clients, programs, copies and tunnels when the guest migrates or is paused.

Each test leaves a guest in which nothing is left of it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from qga.client import CommandError, ConnectError, GuestAgent

from .agent_socket import AgentSocket, encode
from .data_port import MIB, PORT, Link, state_of_port, wait_until_free
from .forwarding import PORT as SERVICE_PORT
from .forwarding import QGACTL, SERVICE
from .migration import RECONNECTING_PORT, Place, Traveller
from .service import by_hand, main_pid, open_files, wait_for, wait_until_asleep
from .vm import DATA_PORTS

# The first test may have to build the image.
pytestmark = pytest.mark.timeout(900)

UNREACHABLE, EXEC_FAILED = 3, 125
# What the guest's kernel has handed over to QEMU cannot be taken back: 128 buffers of 32 KiB, and
# what QEMU wrote to its socket.
QUEUE = 5 * MIB
GONE = b"has the guest shut down or migrated?"

FILE = "/run/service.py"
LEFT_OVER = "find /run /var/tmp -name '*.qga-part'; ps -axo args | grep '[s]leep 4711'"


@pytest.fixture(scope="module")
def traveller() -> Iterator[Traveller]:
    with Traveller() as traveller:
        traveller.here.write_file(FILE, SERVICE)
        traveller.here.run(["systemd-run", "--unit=test-service", "/usr/bin/python3", FILE])
        wait_for(lambda: main_pid(traveller.here), "the agent's start")
        with traveller.here.connect() as agent:  # what stays open from now on is open
            agent.execute("guest-exec", path="/bin/true")
        yield traveller


@pytest.fixture(autouse=True)
def left(traveller: Traveller) -> Iterator[None]:
    """Nothing stays: no descriptor, no program, no port in use, no part of a file, no freeze."""
    before = opened(traveller.here)
    yield
    here = traveller.here
    with here.connect() as agent:
        assert agent.execute("guest-fsfreeze-status") == "thawed"
        wait_for(
            lambda: not any(state_of_port(agent, port)["busy"] for port in DATA_PORTS), "ports"
        )
    wait_for(lambda: opened(here) <= before, "what is open to be closed")
    assert here.run(["/bin/sh", "-c", LEFT_OVER], check=False).stdout == ""


def opened(place: Place) -> int:
    """How many files the agent has open."""
    return len(open_files(place, main_pid(place)))


@contextmanager
def qgactl(place: Place, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [*QGACTL, *words],
        env={**os.environ, "QGA_CONNECT": place.address},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def outcome(process: subprocess.Popen[bytes], timeout: float = 20) -> tuple[int, bytes, bytes]:
    """Its exit status and output; it ends within `timeout` seconds."""
    out, err = process.communicate(timeout=timeout)
    assert b"Traceback" not in err
    return process.returncode, out, err


def start(agent: AgentSocket, script: str) -> int:
    request = {"path": "/bin/sh", "arg": ["-c", script], "capture_output": True}
    return int(agent.execute("guest-exec", **request)["pid"])


def output(agent: AgentSocket, pid: int) -> bytes:
    status = wait_for(
        lambda: (seen := agent.execute("guest-exec-status", pid=pid))["exited"] and seen, "its end"
    )
    return base64.b64decode(status["out-data"])


def test_programs_and_handles_go_on_and_half_a_request_does_not(traveller: Traveller) -> None:
    old = traveller.here.connect()
    pid = start(old, "sleep 3; echo done")
    handle = old.execute("guest-file-open", path=FILE)
    first = old.execute("guest-file-read", handle=handle, count=8)["buf-b64"]
    old.send(b'{"execute": "guest-pi')
    place = traveller.migrate()
    with pytest.raises(ConnectionError):
        old.read_line(5)
    old.close()
    see_it_leave(place)
    with AgentSocket(place.channel_path(), 20) as new:
        new.send(b'ng"}\n\xff' + encode("guest-sync-delimited", {"id": 4714}))
        assert b'{"return": {}}' not in until(new, b'\xff{"return": 4714}\n')
        rest = new.execute("guest-file-read", handle=handle, count=4096)["buf-b64"]
        assert b"".join(map(base64.b64decode, (first, rest))).decode() == SERVICE
        new.execute("guest-file-close", handle=handle)
        assert output(new, pid) == b"done\n"


def test_the_rest_of_a_reply_is_not_for_the_next_client(traveller: Traveller) -> None:
    old = traveller.here.connect()
    traveller.here.run(["truncate", "--size=8M", "/run/zeros"])
    handle = old.execute("guest-file-open", path="/run/zeros")
    old.send(encode("guest-file-read", {"handle": handle, "count": 8 * MIB}))
    assert old.socket.recv(1000)
    traveller.here.qmp("stop")
    read_what_is_there(old)
    place = traveller.migrate()
    old.close()
    see_it_leave(place)
    with AgentSocket(place.channel_path()) as new:
        new.send(b"\xff" + encode("guest-sync-delimited", {"id": 4712}))
        assert len(until(new, b'\xff{"return": 4712}\n')) < QUEUE
        assert new.execute("guest-ping") == {}
        new.execute("guest-file-close", handle=handle)


def read_what_is_there(agent: AgentSocket) -> None:
    """As clients do. A port that QEMU 10.0 takes along full never works again ("Virtqueue size
    exceeded"), and one of 7.2 not until its client changes, whichever agent is in the guest."""
    agent.socket.settimeout(2)
    with suppress(TimeoutError):
        while agent.socket.recv(MIB):
            pass


def see_it_leave(place: Place) -> None:
    """Let the agent see that its client has left: if the next one is quicker, it sees neither."""
    wait_until_asleep(place, main_pid(place))


def until(agent: AgentSocket, end: bytes) -> bytes:
    """All bytes up to `end`."""
    agent.socket.settimeout(20)
    came = bytearray()
    while not came.endswith(end):
        piece = agent.socket.recv(MIB)
        assert piece
        came += piece
    return bytes(came)


def test_a_client_that_waits_at_the_new_place_gets_its_own_replies(traveller: Traveller) -> None:
    """QEMU takes it in before the guest is there, so the guest never sees the old one leave."""
    old = traveller.here.connect()
    old.send(encode("guest-info") * 3 + b'{"execute": "guest-pi')
    early: list[AgentSocket] = []

    def expect(there: Place) -> None:
        early.append(AgentSocket(there.channel_path()))
        early[0].send(b"\xff" + encode("guest-sync-delimited", {"id": 4713}))

    traveller.migrate(expect)
    old.close()
    with early[0] as new:
        new.read_delimited(4713, time.monotonic() + 30)
        assert new.execute("guest-ping") == {}
        assert new.is_silent(0.5)


def test_each_request_is_carried_out_once_at_most(traveller: Traveller) -> None:
    traveller.here.run(["rm", "-f", "/run/numbers"])
    done: list[int] = []

    def ask() -> None:
        with traveller.here.connect() as agent:
            for number in range(100_000):
                try:
                    start(agent, f"echo {number} >>/run/numbers")
                except OSError:
                    return
                done.append(number)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_for(lambda: len(done) > 5, "some requests")
    place = traveller.migrate()
    asking.join(30)
    assert not asking.is_alive()

    def numbers() -> list[int]:
        return sorted(map(int, place.run(["cat", "/run/numbers"]).stdout.split()))

    wait_for(lambda: numbers()[: len(done)] == done, "all that was answered")
    time.sleep(0.5)
    assert numbers() in (done, [*done, len(done)])


def test_a_library_gets_an_error_and_starts_anew(traveller: Traveller) -> None:
    with GuestAgent(traveller.here.address) as old:
        place = traveller.migrate()
        with pytest.raises(ConnectError, match="has the guest shut down or migrated"):
            old.info()
        with pytest.raises(ConnectError, match="is the guest running"):
            old.info()
    with GuestAgent(place.address) as new:
        assert new.exec(["echo", "here"]).stdout == b"here\n"


def test_a_streamed_program_ends(traveller: Traveller) -> None:
    script = "trap '' HUP; sleep 4711 & while sleep 0.1; do echo x; done"
    with qgactl(traveller.here, "exec", "--", "/bin/sh", "-c", script) as program:
        assert program.stdout and program.stdout.read(2) == b"x\n"
        traveller.migrate()
        status, _, err = outcome(program)
    assert (status, GONE in err) == (EXEC_FAILED, True), err


def test_a_streamed_program_without_a_client_ends(traveller: Traveller) -> None:
    """The agent's channel is another's by then: only the port's end is gone."""
    with traveller.here.connect() as old, Link(traveller.here) as link:
        request = {"path": "/bin/sh", "arg": ["-c", "echo ready; exec sleep 4711"]}
        pid = old.execute("qga-exec", port=PORT.name, **request)["pid"]
        link.take(6)
        place = traveller.migrate()
    with place.connect() as new:
        wait_until_free(new)
        end = wait_for(
            lambda: (seen := new.execute("qga-exec-read", pid=pid))["exited"] and seen, "its end"
        )
        assert end["signal"] == signal.SIGHUP


@pytest.mark.parametrize("resume", [False, True])
def test_a_copy_into_the_guest(traveller: Traveller, tmp_path: Path, resume: bool) -> None:
    source, content = tmp_path / "big", os.urandom(MIB) * 48
    source.write_bytes(content)
    words = ["cp", *(["--resume"] if resume else []), str(source), ":/var/tmp/big"]
    here = traveller.here
    here.run(["/bin/sh", "-c", "rm -f /var/tmp/big /var/tmp/.big.qga-part"])
    with qgactl(here, *words) as copying:
        parts = ["/bin/sh", "-c", "stat -c %s /var/tmp/.big*.qga-part || echo 0"]
        wait_for(lambda: int(here.run(parts).stdout) > MIB, "a part of the copy")
        place = traveller.migrate()
        status, _, err = outcome(copying)
    assert (status, GONE in err) == (UNREACHABLE, True), err
    found = place.run(["find", "/var/tmp", "-name", "*big*"]).stdout.split()
    assert found == (["/var/tmp/.big.qga-part"] if resume else [])
    if resume:
        with qgactl(place, *words) as copying:
            status, _, err = outcome(copying, 120)
        assert status == 0, err
        begun_later = ["journalctl", "--unit=qga-test", "--grep", 'receive .*"offset":[1-9]']
        assert place.run(begun_later).stdout
        summed = place.run(["sha256sum", "/var/tmp/big"]).stdout.split()[0]
        assert summed == hashlib.sha256(content).hexdigest()
        place.run(["rm", "/var/tmp/big"])


@pytest.mark.parametrize("resume", [False, True])
def test_a_copy_from_the_guest(traveller: Traveller, tmp_path: Path, resume: bool) -> None:
    traveller.here.run(["/bin/sh", "-c", "head -c 48M /dev/zero >/var/tmp/big"])
    words = ["cp", *(["--resume"] if resume else []), ":/var/tmp/big", f"{tmp_path}/"]
    with qgactl(traveller.here, *words) as copying:
        wait_for(lambda: sum(p.stat().st_size for p in tmp_path.iterdir()) > MIB, "a part")
        place = traveller.migrate()
        status, _, err = outcome(copying)
    assert (status, GONE in err) == (UNREACHABLE, True), err
    names = [path.name for path in tmp_path.iterdir()]
    assert names == ([".big.qga-part"] if resume else [])
    if resume:
        with qgactl(place, *words) as copying:
            assert outcome(copying, 120)[0] == 0
        assert (tmp_path / "big").read_bytes() == bytes(48 * MIB)
    place.run(["rm", "/var/tmp/big"])


def test_a_freeze_goes_on(traveller: Traveller) -> None:
    """And so does its time limit, in an agent that has lost its host meanwhile."""
    old = traveller.here.connect()
    frozen = old.execute("guest-fsfreeze-freeze")
    before = old.execute("qga-get-freeze")
    place = traveller.migrate()
    old.close()
    assert place.original is not None
    see_it_leave(place)
    with place.connect() as new:
        after = new.execute("qga-get-freeze")
        assert after["filesystems"] == before["filesystems"]
        assert after["thaw-in"] < before["thaw-in"]
        writer = place.original.execute("guest-exec", path="/bin/touch", arg=["/var/tmp/written"])
        time.sleep(1)
        assert not place.original.execute("guest-exec-status", **writer)["exited"]
        assert new.execute("guest-fsfreeze-thaw") == frozen > 0
        assert place.wait_exec(place.original, ["touch"], writer["pid"]).status == 0
    place.run(["rm", "/var/tmp/written"])


@contextmanager
def forwarded(
    place: Place, folder: Path
) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """qgactl forward, and a connection to the service that answers with what it gets."""
    path = f"{folder}/service"
    with qgactl(place, "forward", f"{path}:{SERVICE_PORT}") as forwarding:
        assert forwarding.stdout and forwarding.stdout.readline()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(path)
            connection.sendall(b"hello 1")
            assert connection.recv(5) == b"hello"
            yield forwarding, connection


def test_forwarded_connections_are_closed(traveller: Traveller, tmp_path: Path) -> None:
    with forwarded(traveller.here, tmp_path) as (forwarding, connection):
        place = traveller.migrate()
        assert connection.recv(5) == b""
        forwarding.send_signal(signal.SIGINT)
        status, _, err = outcome(forwarding)
        assert (status, GONE in err) == (130, True), err
        assert not list(tmp_path.iterdir())
    still = ["ss", "-Htn", "state", "established", f"sport = {SERVICE_PORT}"]
    wait_for(lambda: place.run(still).stdout == "", "the service's connection to end")


LIMIT, PAUSE = 8, 10
"""Seconds: a time limit in the guest, and how long the guest then stands still."""


def test_time_limits_of_the_guest_stand_still_with_it(traveller: Traveller) -> None:
    here = traveller.here
    here.write_file("/run/short.conf", f"[general]\nfreeze-timeout={LIMIT}\n")
    here.run(["systemctl", "stop", "qga-test"])
    try:
        with by_hand(here, "-c", "/run/short.conf"), here.connect() as agent:
            pid = agent.execute("qga-exec", path="/bin/sleep", arg=["4711"], timeout=LIMIT)["pid"]
            frozen = agent.execute("guest-fsfreeze-freeze")
            here.qmp("stop")
            time.sleep(PAUSE)
            agent.send(encode("guest-fsfreeze-status"))
            assert agent.is_silent(1)
            here.qmp("cont")
            assert json.loads(agent.read_line())["return"] == "frozen"
            assert agent.execute("guest-fsfreeze-thaw") == frozen
            assert not agent.execute("qga-exec-read", pid=pid)["exited"]
            agent.execute("qga-exec-signal", pid=pid, signal="KILL")
    finally:
        here.run(["systemctl", "start", "qga-test"])


def test_a_program_and_a_tunnel_outlast_a_pause(traveller: Traveller, tmp_path: Path) -> None:
    here = traveller.here
    script = "echo one; read line </run/go; echo two"
    here.run(["/bin/sh", "-ec", "rm -f /run/go; mkfifo /run/go"])
    with (
        forwarded(here, tmp_path) as (_, connection),
        qgactl(here, "exec", "--", "/bin/sh", "-c", script) as program,
    ):
        assert program.stdout and program.stdout.read(4) == b"one\n"
        here.qmp("stop")
        time.sleep(PAUSE)
        here.qmp("cont")
        connection.sendall(b"again")
        assert connection.recv(5) == b"again"
        here.run(["/bin/sh", "-c", "echo >/run/go"])
        status, out, err = outcome(program)
        assert (status, out) == (0, b"two\n"), err
        assert b"the guest does not answer" in err
    here.run(["rm", "/run/go"])


def test_a_host_that_listens_and_is_started_anew(traveller: Traveller) -> None:
    """QEMU connects to it (server=off,reconnect=1), and again when it has left."""
    here = traveller.here
    device = f"/dev/virtio-ports/{RECONNECTING_PORT.name}"
    here.plug_port(RECONNECTING_PORT)
    try:
        wait_for(lambda: not here.run(["test", "-e", device], check=False).status, device)
        with by_hand(here, "--path", device):
            for _ in range(2):
                with listening(here) as agent:
                    agent.sync()
                    assert agent.execute("guest-ping") == {}
                    agent.send(encode("guest-get-osinfo") + b'{"execute": "guest-pi')
    finally:
        here.unplug_port(RECONNECTING_PORT)


@contextmanager
def listening(place: Place) -> Iterator[AgentSocket]:
    path = place.channel_path(RECONNECTING_PORT)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(30)
        connection, _ = listener.accept()
    try:
        with AgentSocket(connection) as agent:
            yield agent
    finally:
        os.unlink(path)


def test_a_guest_that_goes_back_in_time(traveller: Traveller) -> None:
    """QEMU's sockets stay connected over loadvm: only the client is not reverted."""
    here = traveller.here
    with GuestAgent(here.address, 20) as agent:
        agent.file_open(FILE)
        monitor(here, "savevm before")
        handle = agent.file_open(FILE)
        later = agent.exec_start(["/bin/sleep", "4711"])
        monitor(here, "loadvm before")
        with pytest.raises(CommandError, match="has not been found"):
            agent.file_read(handle, 1)
        with pytest.raises(CommandError, match="does not exist"):
            agent.exec_status(later)
        again = agent.file_open(FILE)
        assert agent.file_read(again, 8).data
        agent.file_close(again)
        agent.file_close(again - 1)
    monitor(here, "delvm before")


def monitor(place: Place, line: str) -> None:
    """A command for people: QMP of QEMU 7.2 has none for this."""
    assert place.qmp("human-monitor-command", command_line=line) == ""
    place.original.sync()  # type: ignore[union-attr]
