"""Addresses: what is one, what is refused and how, and what the ways say that lead nowhere."""

from __future__ import annotations

import errno
import os
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

import pytest

from qga.client import AgentTimeout, ConnectError, GuestAgent
from qga.client.addresses import resolve, transport_opener, uri_and_domain
from qga.client.sockets import UNIX_ADVICE, VSOCK_ADVICE, connect_unix, connect_vsock, explained
from tests.unit.host_root import HostRoot, impostor, qemu

LIMIT = 1 << 20


@pytest.mark.parametrize("address", ["", "unix", "unix:", "libvirt", "/run/x", "tcp:localhost:1"])
def test_what_is_not_an_address_is_refused_with_the_right_forms(address: str) -> None:
    with pytest.raises(
        ValueError, match="expected: unix:PATH, vsock:CID:PORT, hvsock:PATH:PORT, libv"
    ):
        transport_opener(address, LIMIT)


@pytest.mark.parametrize("place", ["3", "3:", ":1", "x:1", "3:1:5", "-1:5", f"3:{2**32}", "3: 5"])
def test_a_vsock_address_is_two_numbers(place: str) -> None:
    with pytest.raises(ValueError, match="expected vsock:CID:PORT"):
        transport_opener(f"vsock:{place}", LIMIT)


@pytest.mark.parametrize("vmid", ["web", "-1", "../1", "1.5"])
def test_a_guest_of_proxmox_has_a_number(vmid: str) -> None:
    with pytest.raises(ValueError, match="expected proxmox:VMID"):
        transport_opener(f"proxmox:{vmid}", LIMIT)


@pytest.mark.parametrize(
    ("place", "uri", "domain"),
    [
        ("web", "", "web"),
        ("a:b", "", "a:b"),
        ("qemu:///system/web", "qemu:///system", "web"),
        ("qemu:///session/web", "qemu:///session", "web"),
        ("test:///default/test", "test:///default", "test"),
        ("qemu+ssh://root@host:22/system/web", "qemu+ssh://root@host:22/system", "web"),
        ("qemu+ssh://host/system?keyfile=/k/id/web", "qemu+ssh://host/system?keyfile=/k/id", "web"),
        ("hail/web", "hail", "web"),
    ],
)
def test_the_domain_is_what_follows_the_last_slash(place: str, uri: str, domain: str) -> None:
    assert uri_and_domain(place) == (uri, domain)


@pytest.mark.parametrize("place", ["qemu:///system", "qemu+ssh://host/system", "qemu:///system/"])
def test_a_uri_alone_lacks_the_domain(place: str) -> None:
    with pytest.raises(ValueError, match="lacks the domain, expected: libvirt:DOMAIN"):
        transport_opener(f"libvirt:{place}", LIMIT)


def test_a_missing_socket_and_a_left_over_one(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with pytest.raises(ConnectError, match="No such file or directory: is the guest running"):
        connect_unix("unix:x", str(path))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    with pytest.raises(ConnectError, match="unix:x: Connection refused: nobody listens"):
        connect_unix("unix:x", str(path))


def test_a_full_queue_of_waiting_clients(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        with connect_unix("unix:x", path), pytest.raises(ConnectError, match="too many clients"):
            connect_unix("unix:x", path)


def test_no_descriptor_for_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket, "socket", fail)
    with pytest.raises(ConnectError, match="unix:x: Too many open files"):
        connect_unix("unix:x", "/x")


def test_a_path_that_no_socket_can_have() -> None:
    with pytest.raises(ConnectError, match="too long"):
        connect_unix("unix:x", "/" + "x" * 200)


def test_a_path_longer_than_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        listener.listen()
        connect_unix("unix:x", str(folder / "socket")).close()
        with pytest.raises(ConnectError, match="No such file or directory: is the guest"):
            connect_unix("unix:x", str(folder / "none" / "socket"))


def test_missing_permission_is_explained() -> None:
    text = explained(PermissionError(errno.EACCES, "Permission denied"), UNIX_ADVICE)
    assert text.startswith("Permission denied: run this as root")


def test_vsock_to_nobody_says_what_to_look_at() -> None:
    with pytest.raises((ConnectError, TimeoutError)) as caught:
        connect_vsock(4_000_000, 1234, time.monotonic() + 0.2)
    if isinstance(caught.value, ConnectError):
        assert any(advice in str(caught.value) for advice in VSOCK_ADVICE.values())


def test_proxmoxs_socket_is_found_by_the_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QGA_HOST_ROOT", str(tmp_path))
    with pytest.raises(ConnectError, match="proxmox:101: No such file"):
        transport_opener("proxmox:101", LIMIT)(time.monotonic() + 5)
    folder = tmp_path / "var/run/qemu-server"
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "101.qga"))
        listener.listen()
        for address in ("proxmox:101", "101"):
            transport_opener(address, LIMIT)(time.monotonic() + 5).close()
            listener.accept()[0].close()


def test_a_name_that_no_guest_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QGA_HOST_ROOT", str(tmp_path))
    with pytest.raises(ConnectError, match=r"web: no running guest .* available: none"):
        resolve("web")


def test_a_name_that_two_guests_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QGA_HOST_ROOT", str(tmp_path))
    for number in (1, 2):
        folder = tmp_path / f"var/lib/libvirt/qemu/channel/target/domain-{number}-web"
        folder.mkdir(parents=True)
        (folder / "org.qemu.guest_agent.0").touch()
    with pytest.raises(ConnectError, match=r"use an address: unix:.*domain-1-web.*domain-2-web"):
        resolve("web")


def test_who_waits_behind_another_client_is_reported_so(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with connect_unix("unix:x", str(path)), pytest.raises(AgentTimeout) as caught:
            GuestAgent(f"unix:{path}", 0.05).__enter__()
    assert "another program is connected to this socket" in str(caught.value)


def test_an_agent_that_has_accepted_us_beside_others_is_not_taken_for_qemu(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen()

        def accept_all() -> None:
            for _ in range(2):
                stack.enter_context(listener.accept()[0])

        accepting = Thread(target=accept_all)
        accepting.start()
        with connect_unix("unix:x", str(path)), pytest.raises(AgentTimeout) as caught:
            GuestAgent(f"unix:{path}", 0.5).__enter__()
        accepting.join()
    assert "the agent has accepted the connection" in str(caught.value)
    assert "QEMU" not in str(caught.value)


def test_libvirts_socket_that_is_held_says_how_to_go_by_libvirt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QGA_HOST_ROOT", str(tmp_path))
    folder = tmp_path / "run/libvirt/qemu/channel/1-web"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)  # the whole path may be longer than a socket's may
    name = "org.qemu.guest_agent.0"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        with connect_unix("unix:x", name), pytest.raises(AgentTimeout) as caught:
            GuestAgent(f"unix:{name}", 0.05).__enter__()
    assert str(caught.value).endswith("use libvirt:qemu:///system/web")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_socket_that_another_user_puts_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the connection, by whose name a guest was found."""
    monkeypatch.setenv("QGA_HOST_ROOT", str(tmp_path))
    path = tmp_path / "var/run/qemu-server/101.qga"
    path.parent.mkdir(parents=True)
    monkeypatch.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as ours:
        ours.bind("101.qga")
        ours.listen()
        guest = resolve("101")
        transport_opener(guest, LIMIT)(time.monotonic() + 5).close()
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind("101.qga")
            listen_as(4242, other)
            with pytest.raises(ConnectError, match="user 4242 listens there, not 101"):
                transport_opener(guest, LIMIT)(time.monotonic() + 5)
            with pytest.raises(ConnectError, match="user 4242 listens there, not 101"):
                GuestAgent("101").ping()
            transport_opener(f"unix:{path}", LIMIT)(time.monotonic() + 5).close()


def listen_as(uid: int, listener: socket.socket) -> None:
    """The one who listens is, for those who connect, the one who was at that moment."""
    child = os.fork()
    if not child:
        try:
            os.setresuid(uid, uid, uid)
            listener.listen()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def test_a_socket_that_leads_to_another_process(tmp_path: Path) -> None:
    """One of those who are believed, but not the guest of this name: by a link, say."""
    name = f"guest-{os.getpid()}"
    with impostor(tmp_path, name), socket.socket(socket.AF_UNIX) as ours:
        ours.bind(str(tmp_path / "db.sock"))
        ours.listen()
        (tmp_path / "socket").symlink_to("db.sock")
        with pytest.raises(ConnectError, match=f"process {os.getpid()} listens there, not {name}"):
            GuestAgent(name).ping()


def test_names_in_an_error_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QGA_HOST_ROOT", str(tmp_path))
    root = HostRoot(tmp_path)
    for number in range(200):
        root.process(1000 + number, qemu("web", f"/srv/{number}"))
        root.process(2000 + number, qemu(f"web{number}", f"/run/{number}"))
    with pytest.raises(ConnectError, match=r"use an address: .* and 190 more"):
        resolve("web")
    with pytest.raises(ConnectError, match=r"available: web, web0, .* and 191 more$"):
        resolve("db")
    with pytest.raises(ConnectError, match=r"did you mean web\d+ or web\d+ or web\d+\?$"):
        resolve("wbe100")


def test_an_error_says_what_was_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QGA_HOST_ROOT", str(tmp_path))
    HostRoot(tmp_path).process(9, qemu("web", "/srv/web"), uids=[4242] * 4)
    with pytest.raises(ConnectError, match=r"available: none; left out .* process 9 of user 4242"):
        resolve("web")
