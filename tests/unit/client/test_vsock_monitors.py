"""Finding guests by the command lines of monitors whose vsock is a socket of the host."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest

from qga.client import ConnectError, GuestAgent
from qga.client.hosts.discovery import find_guests
from qga.client.hosts.processes import OTHERS
from qga.client.hosts.trust import LeftOut
from qga.client.vsock_ports import dial_of
from tests.unit.host_root import HostRoot, qemu

OTHER = 4242


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostRoot:
    monkeypatch.setenv("QGA_HOST_ROOT", str(tmp_path))
    return HostRoot(tmp_path)


def found() -> list[tuple[str, str, str, int]]:
    return [(each.name, each.address, each.manager, each.process) for each in find_guests()]


@pytest.mark.parametrize(
    "argv",
    [
        ["/usr/bin/cloud-hypervisor", "--vsock", "cid=3,socket=/run/web.vsock"],
        ["/opt/cloud-hypervisor-static", "--cpus", "boot=1", "--vsock=socket=/run/web.vsock,cid=3"],
        ["/usr/bin/vhost-device-vsock", "--socket", "/run/c", "--uds-path=/run/web.vsock"],
        ["/usr/bin/vhost-device-vsock", "--vm", "guest-cid=4,uds-path=/run/web.vsock,socket=/c"],
    ],
)
def test_by_the_options_of_a_monitor(host: HostRoot, argv: list[str]) -> None:
    host.process(7, argv)
    path = host.file("/run/web.vsock")
    manager = "cloud-hypervisor" if "cloud" in argv[0] else "qemu"
    assert found() == [("web", f"hvsock:{path}:1234", manager, 7)]


@pytest.mark.parametrize(
    ("root", "given", "path"),
    [("/", "web.vsock", "/srv/vm/web.vsock"), ("/srv/jail", "/run/v", "/srv/jail/run/v")],
)
def test_by_the_configuration_of_firecracker(
    host: HostRoot, root: str, given: str, path: str
) -> None:
    """A jailed one sees other paths."""
    argv = ["/usr/bin/firecracker-v1.7.0-x86_64", "--id", "db", "--config-file", "/etc/vm.json"]
    host.process(7, argv, cwd="/srv/vm", root=root)
    config = host.file(f"{root}/etc/vm.json")
    config.write_text(json.dumps({"vsock": {"guest_cid": 3, "uds_path": given}}))
    made = host.file(path)
    assert found() == [("db", f"hvsock:{made}:1234", "firecracker", 7)]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"vsock": []}', '{"vsock": {"uds_path": 7}}', "[" * 100_000, "\x00", None],
)
def test_a_configuration_without_a_vsock(host: HostRoot, content: str | None) -> None:
    host.process(7, ["/usr/bin/firecracker", "--config-file", "/etc/vm.json"])
    if content is not None:
        host.file("/etc/vm.json").write_text(content)
    host.process(8, ["/usr/bin/firecracker", "--config-file"])
    host.process(9, ["/usr/bin/cloud-hypervisor", "--vsock", "--vsock="])
    assert found() == []


def test_a_configuration_of_another_user(host: HostRoot) -> None:
    host.process(7, ["/usr/bin/firecracker", "--config-file", "/etc/vm.json"])
    config = host.file("/etc/vm.json")
    config.write_text(json.dumps({"vsock": {"uds_path": str(host.file("/run/v"))}}))
    os.chown(config, OTHER, OTHER)
    assert found() == []


def test_a_monitor_or_a_socket_of_another_user(host: HostRoot) -> None:
    host.process(7, ["/usr/bin/cloud-hypervisor", "--vsock=socket=/run/a"], uids=[OTHER] * 4)
    host.process(8, ["/usr/bin/cloud-hypervisor", "--vsock=socket=/run/b"], program="/bin/sh")
    host.process(9, ["/usr/bin/cloud-hypervisor", "--vsock=socket=/run/c"])
    for name in "abc":
        host.file(f"/run/{name}")
    os.chown(host.folder / "run/c", OTHER, OTHER)
    left_out = LeftOut()
    assert find_guests(left_out) == []
    assert [reason for reason, _ in left_out] == [
        OTHERS,
        "not a QEMU or other monitor, despite its arguments",
        "owned by another user",
    ]


def test_a_device_beside_qemu(host: HostRoot) -> None:
    """The guest has QEMU's name, and is listed once where it has an agent port as well."""
    client = ["-chardev", "socket,id=v,path=/run/control"]
    host.process(7, ["/usr/bin/vhost-device-vsock", "--socket=/run/control", "--uds-path=/run/v"])
    host.process(8, ["/usr/bin/qemu-system-x86_64", "-name", "web", *client])
    made = host.file("/run/v")
    assert found() == [("web", f"hvsock:{made}:1234", "qemu", 7)]
    host.process(9, [*qemu("web", "/run/port"), *client])
    port = host.file("/run/port")
    assert found() == [("web", f"unix:{port}", "qemu", 9)]


def test_nothing_is_sent_to_a_stranger_at_the_place_of_a_socket(
    host: HostRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name: the monitor is process 7, we are another one."""
    monkeypatch.setattr("qga.client.hosts.discovery.host_root", lambda: Path("/"))
    monkeypatch.setattr("qga.client.hosts.discovery.running_machines", machines_of(host))
    path = host.folder / "v"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        for connect in (by_name, by_data_port):
            with pytest.raises(ConnectError, match="listens there, not v"):
                connect()
            connection = listener.accept()[0]
            with connection:
                assert connection.recv(1) == b""


def by_name() -> None:
    with GuestAgent("v", 5) as agent:
        agent.ping()


def by_data_port() -> None:
    dial = dial_of("v")
    assert dial is not None
    dial(5000, time.monotonic() + 5)


def machines_of(host: HostRoot) -> object:
    from qga.client.hosts.processes import running_machines

    host.process(7, ["/usr/bin/cloud-hypervisor", f"--vsock=socket={host.folder}/v"])
    return lambda _root, left_out=None: running_machines(host.folder, left_out)
