"""A port is unplugged and plugged in again and again, without any effect on another port."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest

from .agent_socket import AgentSocket, encode
from .service import by_hand, main_pid, open_files, stopped, wait_for
from .vm import SPARE_PORT, Guest

pytestmark = pytest.mark.timeout(900)

PULLS = 20
CONFIG = "/run/two-ports.conf"
PROGRAM = "echo out; echo err >&2; kill -9 $$"


class GoodClient(threading.Thread):
    """Sends requests with known replies. `fault` is the first wrong reply."""

    def __init__(self, host: AgentSocket) -> None:
        super().__init__()
        self.host = host
        self.over = threading.Event()
        self.answers = 0
        self.fault: BaseException | None = None

    def run(self) -> None:
        chance = Random(1)
        try:
            while not self.over.is_set():
                self.ask(chance.randrange(2**63))
                self.write_and_read(chance.randbytes(chance.randrange(1, 50_000)))
                self.run_program()
        except BaseException as error:
            self.fault = error

    def ask(self, number: int) -> None:
        for at in range(20):
            self.host.send(encode("guest-sync", {"id": number + at}))
        for at in range(20):
            assert self.host.read_line() == b'{"return": %d}' % (number + at)
            self.answers += 1

    def write_and_read(self, content: bytes) -> None:
        text = base64.b64encode(content).decode("ascii")
        handle = self.host.execute("guest-file-open", path="/run/pulled", mode="w+")
        self.host.execute("guest-file-write", handle=handle, buf_b64=text)
        self.host.execute("guest-file-seek", handle=handle, offset=0, whence="set")
        assert self.host.execute("guest-file-read", handle=handle, count=60_000)["buf-b64"] == text
        self.host.execute("guest-file-close", handle=handle)
        self.answers += 5

    def run_program(self) -> None:
        arguments = {"path": "sh", "arg": ["-c", PROGRAM], "capture-output": True}
        pid = self.host.execute("guest-exec", **arguments)["pid"]
        while not (status := self.host.execute("guest-exec-status", pid=pid))["exited"]:
            self.answers += 1
        assert status["signal"] == 9
        assert base64.b64decode(status["out-data"]) == b"out\n"
        assert base64.b64decode(status["err-data"]) == b"err\n"
        self.answers += 2


@contextmanager
def on_two_ports(guest: Guest) -> Iterator[int]:
    """An agent on the first port and on a second one; its process."""
    path = f"/dev/virtio-ports/{SPARE_PORT.name}"
    guest.write_file(CONFIG, f"[channel second]\nmethod=virtio-serial\npath={path}\n")
    guest.plug_port(SPARE_PORT)
    try:
        wait_for(lambda: not guest.run(["test", "-e", path], check=False).status, path)
        with stopped(guest), by_hand(guest, "-c", CONFIG) as unit:
            yield main_pid(guest, unit)
            assert main_pid(guest, unit) != 0
    finally:
        guest.unplug_port(SPARE_PORT)


def pull(guest: Guest, number: int) -> None:
    """Unplug the first port while it is in use, and use it again when it is back."""
    under_way = (
        b'{"execute": "guest-file-op',
        encode("guest-exec", {"path": "sleep", "arg": ["1"], "capture-output": True}),
        encode("guest-file-read", {"handle": 1 << 40, "count": 48 << 20}) * 50,
        encode("guest-info") * 200,
    )
    with AgentSocket(guest.channel_path()) as host:
        host.send(under_way[number % len(under_way)])
        guest.unplug_port()
        guest.plug_port()
    with guest.connect() as host:
        assert host.execute("guest-sync", id=number) == number


def threads_and_children(guest: Guest, pid: int) -> tuple[int, int]:
    script = f"ls /proc/{pid}/task | wc -l; cat /proc/{pid}/task/*/children | wc -w"
    threads, children = guest.run(["/bin/sh", "-c", script]).stdout.split()
    return int(threads), int(children)


def test_the_other_port_does_not_notice(guest: Guest) -> None:
    with on_two_ports(guest) as pid, guest.connect(SPARE_PORT) as host:
        pull(guest, 0)  # the first complaint opens the journal, which stays open
        opened = open_files(guest, pid)
        client = GoodClient(host)
        client.start()
        try:
            for number in range(PULLS):
                pull(guest, number)
                assert client.fault is None, client.fault
        finally:
            client.over.set()
            client.join()
        assert client.fault is None, client.fault
        assert client.answers > PULLS * 20
        wait_for(lambda: threads_and_children(guest, pid)[1] == 0, "the children's end")
        assert threads_and_children(guest, pid)[0] <= 1 + 3
        wait_for(lambda: len(open_files(guest, pid)) == len(opened), "the descriptors' end")
