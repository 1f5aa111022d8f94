"""qgactl on a host: list, doctor and channel."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.client_agents import AGENTS, running
from tests.integration.qgactl_process import QGACTL, Result, environment
from tests.integration.qgactl_process import qgactl as plain_qgactl
from tests.unit.host_root import AGENT_PORT, HostRoot, impostor, qemu

OTHER = 4242
"""A user other than root and libvirt's."""

DOMAIN_SOCKET = f"/var/lib/libvirt/qemu/channel/target/domain-1-web/{AGENT_PORT}"


def qgactl(root: HostRoot, *arguments: str, without: str = "") -> Result:
    """Exit status, stdout and stderr, on a host with this root, `without` a module."""
    argv = list(QGACTL)
    if without:
        argv[-1] = f"import sys; sys.modules['{without}'] = None; {argv[-1]}"
    done = subprocess.run(
        [*argv, *arguments],
        capture_output=True,
        text=True,
        env={**environment(None), "QGA_HOST_ROOT": str(root.folder)},
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(params=AGENTS)
def agent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The socket of an agent, original or ours."""
    with running(request.param, tmp_path) as address:
        yield address[len("unix:") :]


@pytest.fixture
def root() -> Iterator[HostRoot]:
    """A host without guests. Its path is short enough for sockets, and it has a /tmp."""
    with tempfile.TemporaryDirectory(prefix="qga-") as folder:
        (Path(folder) / "tmp").symlink_to("/tmp")
        yield HostRoot(Path(folder))


@contextmanager
def listening(path: Path) -> Iterator[Path]:
    """A socket on which nobody ever answers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield path


@contextmanager
def held(path: Path) -> Iterator[Path]:
    """A socket that another program is connected to."""
    with listening(path), socket.socket(socket.AF_UNIX) as holder:
        holder.connect(str(path))
        yield path


def test_list_of_no_guests(root: HostRoot) -> None:
    status, out, err = qgactl(root, "list")
    assert (status, out) == (0, "")
    assert err.startswith(
        "qgactl: no running guest with an agent port was found; "
        "`qgactl channel` shows how to add one"
    )
    assert qgactl(root, "list", "--json") == (0, "[]\n", "")


def test_list_of_guests_that_answer_are_silent_or_gone(
    root: HostRoot, agent: str, tmp_path: Path
) -> None:
    root.process(11, qemu("guest=db", agent))
    root.process(12, qemu("guest=web", str(tmp_path / "silent")))
    root.process(13, qemu("guest=\x1b[2J", str(tmp_path / "gone")))
    with listening(tmp_path / "silent"):
        status, out, err = qgactl(root, "--timeout", "4", "list", "--long")
        short = qgactl(root, "list", "--timeout", "4s", "--quiet")
        objects = json.loads(qgactl(root, "--timeout", "4", "list", "--json")[1])
    head, _, *rows = out.splitlines()
    assert status == 0
    assert head.split("  ")[0] == "Guest"
    assert [re.split(r" {3,}", row)[:2] for row in rows] == [
        ["\\x1b[2J", "unreachable"],
        ["db", "answers"],
        ["web", "silent"],
    ]
    assert rows[1].endswith(f"unix:{root.folder}{agent}")
    assert max(map(len, short[1].splitlines())) <= 80
    assert "Connect with" not in short[1]
    gone, silent = err.splitlines()
    assert "No such file or directory: is the guest running" in gone
    assert gone.startswith("qgactl: \\x1b[2J: unix:")
    assert "is the agent running in the guest" in silent
    answer = objects[1]
    assert {key: answer[key] for key in ("name", "manager", "state", "error", "host-name")} == {
        "name": "db",
        "manager": "qemu",
        "state": "answers",
        "error": None,
        "host-name": socket.gethostname(),
    }
    assert answer["version"].count(".") == 2
    assert answer["os"]
    assert "127.0.0.1" not in answer["addresses"]


def test_list_says_that_libvirt_holds_a_socket_and_what_helps(root: HostRoot) -> None:
    with held(root.folder / DOMAIN_SOCKET.lstrip("/")):
        status, out, err = qgactl(root, "list", without="libvirt_qemu")
    assert status == 0
    assert re.search(r"^web +held$", out, re.MULTILINE)
    assert err == (
        "qgactl: web: libvirt has its socket open; install python3-libvirt to go through libvirt\n"
    )


def test_list_of_two_guests_of_one_name(root: HostRoot, tmp_path: Path) -> None:
    root.process(11, qemu("guest=web", str(tmp_path / "one")))
    root.process(12, qemu("guest=web", str(tmp_path / "two")))
    note = "qgactl: several guests have the same name; `qgactl list --long` shows their addresses\n"
    assert note in qgactl(root, "list")[2]
    assert note not in qgactl(root, "list", "--long")[2]
    assert note not in qgactl(root, "list", "-q")[2]


def test_a_guest_by_its_name(root: HostRoot, agent: str) -> None:
    root.process(11, qemu("guest=db", agent))
    status, out, err = qgactl(root, "--connect", "db", "ping")
    assert (status, err) == (0, "")
    assert out.startswith("db: answer 1 after ")
    assert qgactl(root, "--connect", "web", "ping") == (
        3,
        "",
        "qgactl: web: no running guest with this name has an agent port; available: db\n",
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize("command", [["list"], ["doctor", "web"], ["--connect", "web", "ping"]])
def test_a_qemu_of_another_user_does_not_get_a_name(command: list[str]) -> None:
    """It would receive what is sent to the guest of this name, such as a password."""
    name = f"web-{os.getpid()}"
    with (
        tempfile.TemporaryDirectory(prefix="qga-") as folder,
        listening(Path(folder) / "socket") as path,
    ):
        Path(folder).chmod(0o755)
        os.chown(path, OTHER, -1)
        with impostor(Path(folder), name, uid=OTHER) as pid:
            words = [name if word == "web" else word for word in command]
            status, out, err = plain_qgactl("--timeout", "1", *words)
    assert f"process {pid} of user {OTHER} ({name})" in (err or out)
    assert not re.search(rf"^{name}", out, re.MULTILINE)
    assert status == (0 if command == ["list"] else 1 if command[0] == "doctor" else 3)


WITHOUT_RIGHTS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-sys_ptrace"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["list"], 0),
        (["top", "--count", "1", "--interval", "0.1", "--json"], 4),
        (["doctor", "db"], 1),
        (["--connect", "db", "ping"], 4),
        (["exporter", "--listen", "1"], 2),
    ],
)
def test_directories_that_may_not_be_read(
    root: HostRoot, tmp_path: Path, command: list[str], expected: int
) -> None:
    """Such as libvirt's, for an ordinary user. A guest outside of them is found nevertheless."""
    root.file(DOMAIN_SOCKET)
    closed = root.folder / "var/lib/libvirt/qemu"
    closed.chmod(0o750)
    os.chown(closed, OTHER, OTHER)
    root.process(12, qemu("guest=db", str(tmp_path / "db")))
    with listening(tmp_path / "db"):
        done = subprocess.run(
            [*WITHOUT_RIGHTS, *QGACTL, "--timeout", "0.5", *command],
            capture_output=True,
            text=True,
            env={**environment(None), "QGA_HOST_ROOT": str(root.folder)},
            timeout=60,
            check=False,
        )
    assert done.returncode == expected, done.stderr
    assert "Error" not in done.stderr
    if command[0] in {"list", "top"}:
        assert f"(cannot be read: Permission denied): {closed}/" in done.stderr
        assert "db" in done.stdout


def states(out: str) -> dict[str, str]:
    """The state of each check in the output."""
    lines = [line for line in out.splitlines() if not line.startswith(" ")]
    return {line[8:].partition(": ")[0]: line[:8].strip() for line in lines}


def test_doctor_where_all_is_well(root: HostRoot, agent: str) -> None:
    root.process(11, qemu("guest=db", agent))
    status, out, err = qgactl(root, "doctor", "db")
    assert (status, err) == (0, "")
    found = states(out)
    assert found.pop("commands") in {"ok", "warning"}  # the original has none for Linux's devices
    assert found == dict.fromkeys(
        [
            "guest",
            "socket",
            "permission",
            "answer",
            "round trip",
            "version",
            "filesystems",
            "clock",
        ],
        "ok",
    )
    report = json.loads(qgactl(root, "--connect", f"unix:{agent}", "doctor", "--json")[1])
    assert (report["address"], report["healthy"]) == (f"unix:{agent}", True)
    assert report["checks"][0] == {
        "subject": "socket",
        "state": "ok",
        "detail": f"found {agent}",
        "advice": "",
    }


def test_doctor_tells_which_commands_are_off(root: HostRoot, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    options = ["--block-rpcs=guest-get-time,guest-exec"]
    with running("ours", blocked, options) as address:
        status, out, _ = qgactl(root, "doctor", address)
        refused = qgactl(root, "--connect", address, "call", "guest-get-time")
    assert status == 0
    assert "are off: guest-exec, guest-get-time" in out
    assert "        try: if that is not wanted: qemu-ga --doctor in the guest" in out
    assert states(out)["clock"] == "warning"
    assert refused[0] == 1
    assert refused[2].endswith("; qgactl doctor shows where to look\n")


def test_doctor_of_a_guest_that_is_not_there(root: HostRoot) -> None:
    status, out, _ = qgactl(root, "doctor", "web", without="libvirt_qemu")
    assert (status, states(out)) == (1, {"guest": "failed"})


def test_doctor_of_a_missing_socket_and_of_a_file(root: HostRoot, tmp_path: Path) -> None:
    status, out, _ = qgactl(root, "doctor", f"unix:{tmp_path}/none")
    assert (status, states(out)) == (1, {"socket": "failed"})
    assert "        try: is the guest running? qgactl list shows" in out
    (tmp_path / "file").touch()
    assert f"{tmp_path}/file is not a socket" in qgactl(root, "doctor", f"unix:{tmp_path}/file")[1]


def test_doctor_of_a_socket_that_another_holds(root: HostRoot) -> None:
    with held(root.folder / DOMAIN_SOCKET.lstrip("/")) as path:
        status, out, _ = qgactl(root, "--timeout", "0.1", "doctor", f"unix:{path}")
    assert status == 1
    assert states(out) == {
        "socket": "ok",
        "permission": "ok",
        "connection": "warning",
        "answer": "failed",
    }
    assert "        try: use libvirt:qemu:///system/web\n" in out


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_doctor_without_permission(root: HostRoot) -> None:
    """Even root needs the capability for files of others."""
    with listening(root.folder / "closed") as path:
        os.chown(path, 65534, -1)
        path.chmod(0o600)
        done = subprocess.run(
            [
                *("setpriv", "--bounding-set=-dac_override,-dac_read_search"),
                *(*QGACTL, "doctor", f"unix:{path}"),
            ],
            capture_output=True,
            text=True,
            env=environment(None),
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "")
    assert states(done.stdout) == {"socket": "ok", "permission": "failed"}
    assert "the socket belongs to nobody and has mode 600" in done.stdout
    assert "        try: run this as root" in done.stdout


def test_doctor_of_a_machine_that_qemu_has_paused(tmp_path: Path) -> None:
    name, monitor = f"web-{os.getpid()}", tmp_path / "qmp"
    program, *arguments = qemu(f"guest={name}", str(tmp_path / "agent"))
    argv = [program, "-device", "virtio-serial-pci,id=virtio-serial0", *arguments]
    argv += ["-display", "none", "-nodefaults", "-m", "16", "-accel", "tcg"]
    argv += ["-qmp", f"unix:{monitor},server=on,wait=off"]
    with subprocess.Popen(argv) as process:
        try:
            wait_for(monitor)
            status, out, _ = plain_qgactl("--timeout", "1", "doctor", name)
            assert "ok      machine: QEMU reports: running" in out
            assert states(out)["answer"] == "failed"
            assert ask(monitor, "stop") == {}
            status, out, _ = plain_qgactl("--timeout", "1", "doctor", name)
        finally:
            process.kill()
    assert (status, states(out)["machine"]) == (1, "failed")
    assert "failed  machine: the VM is paused\n        try: " in out


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ask(monitor: Path, command: str) -> object:
    """One command of QMP."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(monitor))
        with connection.makefile("rwb", buffering=0) as lines:
            lines.readline()
            for each in ("qmp_capabilities", command):
                lines.write(json.dumps({"execute": each}).encode())
                while "return" not in (reply := json.loads(lines.readline())):
                    pass
            return reply["return"]


def test_channel_for_both(root: HostRoot) -> None:
    status, out, err = qgactl(root, "channel", "--socket", "/run/a b.sock")
    assert (status, err) == (0, "")
    assert out == (
        "# libvirt: add to <devices> (virsh edit DOMAIN); omit the controller if there is one "
        "already\n"
        '<controller type="virtio-serial" index="0"/>\n'
        '<channel type="unix">\n'
        '  <source mode="bind" path="/run/a b.sock"/>\n'
        '  <target type="virtio" name="org.qemu.guest_agent.0"/>\n'
        '  <address type="virtio-serial" controller="0" bus="0" port="1"/>\n'
        "</channel>\n"
        "\n"
        "# QEMU: add to the command line; omit the first line if that device is there already\n"
        "-device virtio-serial-pci,id=virtio-serial0 \\\n"
        "-chardev 'socket,id=charchannel1,path=/run/a b.sock,server=on,wait=off' \\\n"
        "-device virtserialport,bus=virtio-serial0.0,nr=1,chardev=charchannel1,id=channel1,"
        "name=org.qemu.guest_agent.0\n"
    )


def test_channel_for_programs_and_for_one_of_the_two(root: HostRoot) -> None:
    found = json.loads(qgactl(root, "channel", "--data", "--number", "7", "--json")[1])
    assert {key: found[key] for key in ("name", "number", "socket")} == {
        "name": "org.qga.data.0",
        "number": 7,
        "socket": None,
    }
    assert qgactl(root, "channel", "--data", "--number", "7", "--format", "xml")[1] == (
        found["libvirt"] + "\n"
    )
    assert "nr=2," in qgactl(root, "channel", "org.qga.data.0", "--format", "qemu")[1]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["channel", "a/b"], "'a/b' is not the name of a port"),
        (["channel", "--number", "31"], "the number of a port is 1 to 30"),
        (["channel", "--socket", "x"], "'x' is not an absolute path"),
        (["channel", "--format", "json"], "xml"),
        (["doctor"], "no guest given: qgactl doctor GUEST"),
        (["doctor", "tcp:x"], "is not the address of an agent"),
        (["--connect", "vsock:3", "ping"], "expected vsock:CID:PORT"),
    ],
)
def test_wrong_usage(root: HostRoot, arguments: list[str], complaint: str) -> None:
    status, out, err = qgactl(root, *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert complaint in err
