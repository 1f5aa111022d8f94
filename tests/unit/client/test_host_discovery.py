"""Finding the guests of a host: in libvirt's folders, in Proxmox's, by the QEMUs that run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from qga.client.hosts.discovery import PROXMOX_FOLDER, FoundGuest, find_guests
from qga.client.hosts.processes import (
    LONGEST_COMMAND,
    LONGEST_NAME,
    Process,
    machine_of,
    parts,
    running_machines,
)
from qga.client.hosts.survey import survey
from qga.client.hosts.trust import LeftOut, believed_users
from tests.unit.client_peer import Peer
from tests.unit.host_root import AGENT_PORT, HostRoot, impostor, qemu

T = TypeVar("T")

OTHER = 4242
"""A user who is neither root, nor us, nor libvirt's."""

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
        (f"{LIBVIRT}/domain-7-12-web/{AGENT_PORT}", "qemu:///system/12-web"),
        (f"{LIBVIRT}/12-web.{AGENT_PORT}", "qemu:///system/12-web"),
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
    name = domain.rpartition("/")[2]
    assert only() == FoundGuest(name, f"unix:{made}", str(made), "libvirt", f"libvirt:{domain}")


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


def test_libvirts_qemu_whose_directory_nobody_may_look_into(host: HostRoot) -> None:
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
    host.process(18, ["qemu-system-x86_64", "-name", '{"":' + "[" * 3000], uids=[OTHER] * 4)
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


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


def found_and_left_out() -> tuple[list[str], str]:
    """The guests' names, and what was left out, on lines."""
    left_out = LeftOut()
    names = [guest.name for guest in find_guests(left_out)]
    return names, "\n".join(left_out.lines())


@pytest.mark.parametrize(
    ("uids", "program", "reason"),
    [
        ([OTHER] * 4, "", "of user 4242 (web)"),
        ([OTHER, 0, 0, 0], "", "of user 4242 (web)"),  # a set-user-ID program
        ([0, 0, OTHER, 0], "", "of user 4242 (web)"),
        ([65534] * 4, "", "(web)"),  # someone of whom this user namespace knows nothing
        ([0] * 4, "/usr/bin/sudo", "not a QEMU or other monitor, despite its arguments"),
        ([0] * 4, "/usr/bin/python3.11 (deleted)", "process 9 (/usr/bin/python3.11)"),
        ([0] * 4, "/tmp/qemu-system-x86_64/sh", "process 9 (/tmp/qemu-system-x86_64/sh)"),
    ],
)
def test_a_process_that_only_looks_like_a_qemu_of_ours(
    host: HostRoot, uids: list[int], program: str, reason: str
) -> None:
    host.process(9, qemu("guest=web", "/srv/web.sock"), program=program, uids=uids)
    names, told = found_and_left_out()
    assert names == []
    assert reason in told
    assert "process 9" in told


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("/usr/bin/kvm", "/usr/bin/qemu-system-x86_64"),
        ("/usr/libexec/qemu-kvm", "/usr/libexec/qemu-kvm"),
        ("qemu-system-aarch64", "/usr/bin/qemu-system-aarch64 (deleted)"),
        ("qemu-kvm", "/nix/store/x-qemu/bin/.qemu-system-x86_64-wrapped"),
    ],
)
def test_programs_that_are_qemus(host: HostRoot, name: str, program: str) -> None:
    host.process(9, [name, *qemu("web", "/srv/web.sock")[1:]], program=program)
    assert found_and_left_out() == (["web"], "")


@as_root
def test_libvirts_account_is_whose_its_directory_is(host: HostRoot) -> None:
    account = 64055
    path = host.file(f"{LIBVIRT}/domain-1-db/{AGENT_PORT}")
    os.chown(path, account, -1)
    host.process(9, qemu("guest=web", "/srv/web.sock"), uids=[account] * 4)
    assert found_and_left_out()[0] == []
    os.chown(host.folder / "var/lib/libvirt/qemu", account, -1)
    assert found_and_left_out() == (["db", "web"], "")


@as_root
@pytest.mark.usefixtures("host")
def test_nobody_is_never_libvirts_account(tmp_path: Path) -> None:
    """That is how libvirt's looks where the user namespace has no number for it."""
    folder = tmp_path / "var/lib/libvirt/qemu"
    folder.mkdir(parents=True)
    os.chown(folder, 65534, -1)
    assert believed_users(tmp_path) == {0}


@as_root
def test_a_socket_of_another_user(host: HostRoot) -> None:
    path = host.file("/srv/web.sock")
    host.process(9, qemu("guest=web", "/srv/web.sock"))
    assert found_and_left_out() == (["web"], "")
    os.chown(path, OTHER, -1)
    names, told = found_and_left_out()
    assert names == []
    assert f"{path} of user 4242" in told


@as_root
def test_a_link_that_another_user_has_made(host: HostRoot) -> None:
    link = host.folder / "srv/web.sock"
    host.file("/srv/db.sock")
    link.symlink_to("db.sock")
    os.chown(link, OTHER, -1, follow_symlinks=False)
    host.process(9, qemu("guest=web", "/srv/web.sock"))
    assert found_and_left_out()[0] == []


@as_root
@pytest.mark.parametrize("folder", ["/run/user/1000/libvirt/qemu/run/channel", PROXMOX_FOLDER])
def test_a_directory_of_another_user_names_nothing(host: HostRoot, folder: str) -> None:
    """As after su, which keeps XDG_RUNTIME_DIR."""
    host.file(f"{folder}/1-web/{AGENT_PORT}")
    host.file(f"{folder}/101.qga")
    assert found_and_left_out()[0]
    os.chown(host.folder / folder[1:], OTHER, -1)
    names, told = found_and_left_out()
    assert names == []
    assert folder in told


def test_what_is_left_out_is_reported_in_few_and_short_lines(host: HostRoot) -> None:
    for pid in range(100, 400):
        argv = qemu("guest=" + "w\n" * 1000, "/srv/web.sock")
        host.process(pid, argv, uids=[OTHER] * 4)
    names, told = found_and_left_out()
    assert names == []
    assert "and 297 more" in told
    assert len(told) < 1000


def test_a_command_line_without_an_end(host: HostRoot) -> None:
    arguments = ["-x", "y" * (2 * LONGEST_COMMAND), *qemu("late", "/srv/late.sock")[1:]]
    host.process(9, [*qemu("web", "/srv/web.sock"), *arguments])
    assert found_and_left_out() == (["web"], "")


def test_a_name_without_an_end(host: HostRoot) -> None:
    host.process(9, qemu("guest=" + "w" * 100_000, "/srv/web.sock"))
    assert found_and_left_out() == (["w" * LONGEST_NAME], "")


def test_domains_whose_names_begin_alike(host: HostRoot) -> None:
    names = ["production-database-1", "production-database-2"]
    for number, name in enumerate(names, 7):
        folder = f"domain-{number}-{name[:20]}"
        host.file(f"{LIBVIRT}/{folder}/{AGENT_PORT}")
        key = f"secret,id=masterKey0,file=/var/lib/libvirt/qemu/{folder}/master-key.aes"
        host.process(10 - number, ["/usr/bin/kvm", "-name", f"guest={name}", "-object", key])
    assert [(guest.name, guest.socket.split("/")[-2][:8]) for guest in find_guests()] == [
        (names[0], "domain-7"),
        (names[1], "domain-8"),
    ]


def in_a_child(uid: int, call: Callable[[], T]) -> T:
    """What a call returns that another user makes; it may use what is imported already."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.write(writing, json.dumps(call()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as answer:
        returned: T = json.load(answer)
    return returned


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that every user may look into."""
    with tempfile.TemporaryDirectory(prefix="qga-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def test_real_processes(open_folder: Path) -> None:
    """What runs a program of that name is believed here, if it is root's or our own."""
    name = f"guest-{os.getpid()}"
    with impostor(open_folder, name) as pid:
        (guest,) = (guest for guest in find_guests() if guest.name == name)
        assert (guest.process, guest.socket) == (pid, str(open_folder / "socket"))
    with impostor(open_folder, name, program="/bin/sh"):
        assert name not in found_and_left_out()[0]


@as_root
def test_a_real_process_of_another_user(open_folder: Path) -> None:
    name = f"guest-{os.getpid()}"
    with impostor(open_folder, name, uid=OTHER):
        names, told = found_and_left_out()
        assert name not in names
        assert "run by another user" in told
        assert name in in_a_child(OTHER, found_and_left_out)[0], "it is that user's own"


@as_root
def test_what_an_ordinary_user_may_not_read_costs_nothing_else(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The QEMU of root, whose program is not to be seen; the directories of libvirt; /proc."""
    with impostor(open_folder, f"guest-{os.getpid()}"):
        _, told = in_a_child(OTHER, found_and_left_out)
    assert "only root can see which program" in told

    host = HostRoot(open_folder)
    monkeypatch.setenv("QGA_HOST_ROOT", str(open_folder))
    mine = host.file("/srv/mine.sock")
    os.chown(mine, OTHER, -1)
    host.process(9, qemu("mine", "/srv/mine.sock"), uids=[OTHER] * 4)
    host.process(8, qemu("web", "/srv/web.sock"))
    host.file(f"{LIBVIRT}/domain-1-web/{AGENT_PORT}")
    host.file(f"/run/libvirt/qemu/channel/1-db/{AGENT_PORT}")
    closed = [LIBVIRT[1:], "run/libvirt/qemu/channel/1-db", "proc/8"]
    for folder in closed:
        (open_folder / folder).chmod(0o700)
    names, lines = in_a_child(OTHER, found_and_left_out)
    assert names == ["mine"]
    assert LIBVIRT in lines
    assert "1-db" in lines
    assert "process 8" in lines
    (open_folder / "proc").chmod(0o700)
    names, lines = in_a_child(OTHER, found_and_left_out)
    assert names == []
    assert f"{open_folder}/proc" in lines


def test_hidden_processes_are_reported(host: HostRoot) -> None:
    (host.folder / "proc/1").rename(host.folder / "proc/self")
    host.process(9, qemu("web", "/srv/web.sock"))
    names, told = found_and_left_out()
    assert names == ["web"]
    assert "hidepid" in told


def test_what_a_guest_says_of_itself_is_cut(tmp_path: Path) -> None:
    address = {"ip-address-type": "ipv4", "ip-address": "192.0.2.1", "prefix": 24}
    offered = {"name": "qga-get-version", "enabled": True, "success-response": True}
    link = {"name": "eth0", "hardware-address": "x", "ip-addresses": [address] * 10_000}
    peer = Peer(
        tmp_path / "s",
        {
            "guest-info": lambda _: {"version": "1" * 100_000, "supported_commands": [offered]},
            "qga-get-version": lambda _: {"version": "2" * 100_000, "python": "3"},
            "guest-get-osinfo": lambda _: {"pretty-name": "L" * 100_000},
            "guest-get-host-name": lambda _: {"host-name": "h" * 100_000},
            "guest-network-get-interfaces": lambda _: [link],
        },
    )
    try:
        (answer,) = survey([FoundGuest("web", peer.address, peer.address[5:], "qemu")], 30)
    finally:
        peer.close()
    assert answer.state == "answers"
    assert answer.qga
    assert len(repr(answer)) < 3000


def test_a_process_that_ends_while_it_is_looked_at(open_folder: Path) -> None:
    with impostor(open_folder, "web") as pid:
        process = Process(Path("/proc"), pid)
        assert process.arguments()[0] == "qemu-system-x86_64"
    left_out = LeftOut()
    with process, pytest.raises((FileNotFoundError, ProcessLookupError)):
        machine_of(process, believed_users(Path("/")), left_out)
    assert left_out.lines() == []


def test_processes_that_come_and_go_all_the_time(open_folder: Path) -> None:
    name = f"guest-{os.getpid()}"
    storm = "while :; do /bin/true & /bin/true & wait; done"
    with impostor(open_folder, name), subprocess.Popen(["/bin/sh", "-c", storm]) as others:
        try:
            for _ in range(30):
                names = {machine.name for machine in running_machines(Path("/"))}
                assert name in names
        finally:
            others.kill()
