"""What `qgactl channel` prints is taken: by libvirt's schema, by QEMU, and by a guest."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from qga.client.hosts.channel import Channel
from qga.client.hosts.processes import parts
from tests.guest.qmp import Qmp
from tests.guest.service import wait_for
from tests.guest.vm import SPARE_PORT, Guest
from tests.integration.qgactl_process import qgactl

DOMAIN = """\
<domain type="qemu">
  <name>web</name>
  <memory>65536</memory>
  <os><type arch="x86_64">hvm</type></os>
  <devices>
{devices}
  </devices>
</domain>
"""

PORTS = [
    ["org.qemu.guest_agent.0"],
    ["--data"],
    ["com.example.a,b &<c>", "--number", "30"],
]


@pytest.mark.parametrize("arguments", PORTS)
@pytest.mark.parametrize("socket_path", ["", "/run/a,b '&<c>.sock"])
def test_libvirts_schema_takes_the_xml(
    tmp_path: Path, arguments: list[str], socket_path: str
) -> None:
    options = ["--socket", socket_path] if socket_path else []
    status, devices, _ = qgactl("channel", *arguments, *options, "--format", "xml")
    assert status == 0
    definition = tmp_path / "domain.xml"
    definition.write_text(DOMAIN.format(devices=devices))
    checked = subprocess.run(
        ["virt-xml-validate", str(definition), "domain"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def words_of_a_shell(text: str) -> list[str]:
    script = f"printf '%s\\0' {text}"
    return subprocess.check_output(["/bin/sh", "-ec", script], text=True).split("\0")[:-1]


@pytest.mark.parametrize("arguments", PORTS)
def test_qemu_takes_the_arguments(tmp_path: Path, arguments: list[str]) -> None:
    path = tmp_path / "a,b c.sock"
    status, printed, _ = qgactl("channel", *arguments, "--socket", str(path), "--format", "qemu")
    assert status == 0
    added = words_of_a_shell(printed)
    port = parts(added[-1], "driver")
    ours, theirs = socket.socketpair()
    argv = ["qemu-system-x86_64", "-S", "-display", "none", "-nodefaults", "-machine", "pc"]
    argv += ["-accel", "tcg", "-chardev", f"socket,id=qmp,fd={theirs.fileno()}"]
    argv += ["-mon", "chardev=qmp,mode=control", *added]
    with ours, theirs:
        process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE)
        try:
            theirs.close()
            qmp = Qmp(ours)
            device = f"/machine/peripheral/{port['id']}"
            assert qmp.execute("qom-get", {"path": device, "property": "name"}) == port["name"]
            assert qmp.execute("qom-get", {"path": device, "property": "nr"}) == int(port["nr"])
            assert qmp.execute("qom-get", {"path": device, "property": "type"}) == "virtserialport"
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
        finally:
            process.kill()
            _, complaint = process.communicate()
    assert complaint == b""


@pytest.mark.timeout(900)
def test_a_guest_finds_the_port_by_its_name_and_bytes_pass(guest: Guest, tmp_path: Path) -> None:
    channel = Channel("com.example.greeting", SPARE_PORT.nr, str(tmp_path / "port.sock"))
    channel.check()
    _, chardev, port = map(parts, channel.qemu_arguments()[1::2], ("driver", "backend", "driver"))
    backend = {
        "addr": {"type": "unix", "data": {"path": chardev["path"]}},
        "server": True,
        "wait": False,
    }
    guest.qmp("chardev-add", id=chardev["id"], backend={"type": "socket", "data": backend})
    guest.qmp("device_add", **{**port, "nr": int(port["nr"])})  # QEMU 10 takes no "3" for a number
    link = f"/dev/virtio-ports/{channel.name}"
    try:
        wait_for(
            lambda: guest.run(["test", "-c", link], check=False).status == 0, "the port's link"
        )
        with socket.socket(socket.AF_UNIX) as host:
            host.settimeout(60)
            host.connect(channel.socket)
            guest.run(["/bin/sh", "-ec", f"echo hello >{link}"])
            assert host.makefile().readline() == "hello\n"
    finally:
        guest.qmp("device_del", id=port["id"])
        guest.wait_event("DEVICE_DELETED", device=port["id"])
        guest.qmp("chardev-remove", id=chardev["id"])
