"""Copies of a file to a guest and from it, as people make them: by qgactl cp, and as Ansible does.

qgactl is given no data port, so that the bytes pass through the agent alone. Ansible's connection
community.libvirt.libvirt_qemu sends a request for each 64 KiB and waits for its reply; here it does
so on the port itself, without libvirt between, which is to its advantage.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from base64 import b64decode, b64encode
from pathlib import Path

from tests.bench.client import Client
from tests.bench.measures import Figures, Size
from tests.guest.vm import DATA_PORTS, Guest, GuestError, Port

SCRATCH = "/dev/shm/copied"
ANSIBLE_PIECE = 64 * 1024  # ansible.plugins.connection.BUFSIZE
PATIENCE = 300.0
QGACTL = Path(sys.executable).with_name("qgactl")


def figures(guest: Guest, port: Port, size: Size, *, by_ansible: bool) -> Figures:
    """Megabytes a second by qgactl and, where it is asked for, in Ansible's way."""
    with tempfile.TemporaryDirectory(prefix="qga-bench-copy-", dir="/dev/shm") as name:
        path = Path(name) / "file"
        path.write_bytes(os.urandom(size.copied))
        seconds_in = copy(guest, port, str(path), f":{SCRATCH}")
        back = path.with_name("back")
        seconds_out = copy(guest, port, f":{SCRATCH}", str(back))
        check_same(path.read_bytes(), back.read_bytes())
    speeds = {
        "guest cp in": size.copied / seconds_in / 1e6,
        "guest cp out": size.copied / seconds_out / 1e6,
    }
    if not by_ansible:
        return {**speeds, "guest put": speeds["guest cp in"], "guest fetch": speeds["guest cp out"]}
    with guest.connect(port) as connection:
        return {**speeds, **in_ansibles_way(Client(connection.socket), size.copied_slowly)}


def check_same(sent: bytes, received: bytes) -> None:
    if sent != received:
        raise GuestError("what was copied into the guest did not come back from there")


def copy(guest: Guest, port: Port, source: str, destination: str) -> float:
    """Seconds that `qgactl cp` takes."""
    argv = [str(QGACTL), "--connect", guest.channel_path(port)]
    for data_port in DATA_PORTS:
        argv += ["--data-port", f"{data_port.name}="]
    begin = time.perf_counter()
    done = subprocess.run(
        [*argv, "cp", source, destination],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode:
        raise GuestError(f"qgactl cp {source} {destination}: {done.stderr}")
    return time.perf_counter() - begin


def in_ansibles_way(client: Client, count: int) -> Figures:
    """Megabytes a second, a request at a time: put_file and fetch_file of its connection."""
    data = os.urandom(count)
    begin = time.perf_counter()
    handle = client.call("guest-file-open", path=SCRATCH, mode="wb+")
    for at in range(0, count, ANSIBLE_PIECE):
        piece = b64encode(data[at : at + ANSIBLE_PIECE]).decode()
        client.call("guest-file-write", handle=handle, buf_b64=piece)
    client.call("guest-file-close", handle=handle)
    seconds_in = time.perf_counter() - begin
    begin = time.perf_counter()
    handle = client.call("guest-file-open", path=SCRATCH, mode="r")
    back, eof = b"", False
    while not eof:
        reply = client.call("guest-file-read", handle=handle, count=ANSIBLE_PIECE)
        back, eof = back + b64decode(reply["buf-b64"]), reply["eof"]
    client.call("guest-file-close", handle=handle)
    seconds_out = time.perf_counter() - begin
    check_same(data, back)
    return {"guest put": count / seconds_in / 1e6, "guest fetch": count / seconds_out / 1e6}
