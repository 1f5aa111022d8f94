"""Finding the guests of a host: in libvirt's folders, in Proxmox's, by the QEMUs that run."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from qga.client.hosts.discovery import FoundGuest, find_guests
from qga.client.hosts.processes import parts, running_machines
from tests.unit.host_root import AGENT_PORT, HostRoot, qemu

LIBVIRT = "/var/lib/libvirt/qemu/channel/target"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostRoot:
    monkeypatch.setenv("QGA_HOST_ROOT", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "/home/me/.config")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    return HostRoot(tmp_path)


def only() -> FoundGuest:
    (guest,) = find_guests()
    return guest


@pytest.mark.usefixtures("host")
def test_a_host_without_guests() -> None:
    assert find_guests() == []


@pytest.mark.parametrize(
    ("path", "domain"),
    [
        (f"{LIBVIRT}/domain-12-web/{AGENT_PORT}", "qemu:///system/web"),
        (f"{LIBVIRT}/domain-web/{AGENT_PORT}", "qemu:///system/web"),
        (f"{LIBVIRT}/web.{AGENT_PORT}", "qemu:///system/web"),
        (f"/run/libvirt/qemu/channel/3-web/{AGENT_PORT}", "qemu:///system/web"),
        (
            f"/home/me/.config/libvirt/qemu/channel/target/domain-1-web/{AGENT_PORT}",
            "qemu:///session/web",
        ),
        (
            f"/run/user/1000/libvirt/qemu/run/channel/1-web/{AGENT_PORT}",
            "qemu:///session/web",
        ),
    ],
)
def test_sockets_of_libvirt_old_and_new(host: HostRoot, path: str, domain: str) -> None:
    made = host.file(path)
    assert only() == FoundGuest("web", f"unix:{made}", str(made), "libvirt", f"libvirt:{domain}")


def test_other_channels_of_a_domain_are_not_the_agents(host: HostRoot) -> None:
    host.file(f"{LIBVIRT}/domain-1-web/org.qga.data.0")
    assert find_guests() == []


def test_the_whole_name_of_a_domain_is_qemus(host: HostRoot) -> None:
    host.file(f"{LIBVIRT}/domain-1-a-name-of-more-than-/{AGENT_PORT}")
    host.process(7, ["qemu-kvm", "-name", "guest=a-name-of-more-than-twenty,debug-threads=on"])
    assert only().name == "a-name-of-more-than-twenty"
    assert only().domain == "libvirt:qemu:///system/a-name-of-more-than-twenty"


def test_proxmox_by_number_and_by_name(host: HostRoot) -> None:
    made = host.file("/var/run/qemu-server/101.qga")
    host.file("/var/run/qemu-server/101.qmp")
    host.process(8, ["/usr/bin/kvm", *qemu("web,debug-threads=on", "/var/run/qemu-server/101.qga")])
    assert only() == FoundGuest("web", "proxmox:101", str(made), "proxmox", process=8)
    assert only().is_called("web")
    assert only().is_called("101")
    assert not only().is_called("102")


def test_any_other_qemu(host: HostRoot) -> None:
    host.process(9, qemu("guest=db,debug-threads=on", "/srv/a,,b.sock"))
    host.process(10, qemu("log", "/srv/log.sock", port="org.qga.data.0"))
    host.process(11, ["/usr/bin/less", *qemu("less", "/srv/x.sock")])
    path = str(host.folder / "srv/a,b.sock")
    assert only() == FoundGuest("db", f"unix:{path}", path, "qemu", process=9)


def test_libvirts_qemu_whose_folder_nobody_may_look_into(host: HostRoot) -> None:
    host.process(9, qemu("guest=web,debug-threads=on", f"{LIBVIRT}/domain-1-web/{AGENT_PORT}"))
    assert (only().manager, only().domain) == ("libvirt", "libvirt:qemu:///system/web")


def test_qemus_json_relative_paths_and_no_name(host: HostRoot) -> None:
    device = {"driver": "virtserialport", "nr": 1, "chardev": "c", "name": AGENT_PORT}
    arguments = ["-chardev", "socket,path=a.sock,id=c,server,nowait", "-device", json.dumps(device)]
    host.process(12, ["qemu-system-aarch64", *arguments], cwd="/srv/vm")
    assert only()[:2] == ("qemu-12", f"unix:{host.folder}/srv/vm/a.sock")


def test_a_qemu_that_is_the_client_of_its_channel_has_no_socket(host: HostRoot) -> None:
    argv = qemu("web", "/srv/x.sock")
    host.process(13, [word.replace("server=on,", "") for word in argv])
    assert find_guests() == []


def test_processes_that_tell_nothing_are_passed_over(host: HostRoot) -> None:
    host.process(14, [])
    (host.folder / "proc/15").mkdir()
    host.process(16, ["qemu-system-x86_64", "-device", "{not json"])
    host.process(17, ["qemu-system-x86_64", "-chardev"])
    assert [machine.pid for machine in running_machines(host.folder)] == [17]


def test_options_of_qemu_are_taken_apart() -> None:
    assert parts("socket,id=a,path=/x,,y=z,server", "backend") == {
        "backend": "socket",
        "id": "a",
        "path": "/x,y=z",
        "server": "on",
    }
    assert parts("guest=web", "guest") == {"guest": "web"}


def test_a_busy_socket_of_libvirt_is_asked_by_libvirt_if_that_is_there(
    host: HostRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = host.file(f"/run/libvirt/qemu/channel/3-web/{AGENT_PORT}")
    path.unlink()
    monkeypatch.chdir(path.parent)  # its whole path may be longer than a socket's may
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as holder:
        listener.bind(AGENT_PORT)
        listener.listen()
        assert (only().address, only().busy) == (f"unix:{path}", False)
        holder.connect(AGENT_PORT)
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
        assert (only().address, only().busy) == (f"unix:{path}", True)
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())
        assert (only().address, only().busy) == ("libvirt:qemu:///system/web", True)
