"""qgactl cp, cat, exec and shell with a real guest: over a data port, and over the agent alone."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from qga.client.copies.trees import PIECE
from tests.guest.agent_socket import AgentSocket
from tests.guest.data_port import state_of_port, wait_until_free
from tests.guest.service import main_pid, open_files, wait_for
from tests.guest.vm import DATA_PORTS, Guest
from tests.integration.qgactl_process import QGACTL, SLOW, environment
from tests.integration.terminals import Terminal

pytestmark = pytest.mark.timeout(900)

# Of a large file. Without a data port an emulated guest takes its time.
SIZES = {"port": 64 * 1024 * 1024, "agent": 24 * 1024 * 1024}
SOME = 2 * 1024 * 1024  # bytes, more than are on the way to the guest at once
FOLDER = "/var/tmp/copies"

# For the two ways: data ports are found, or are to be left alone.
WAYS = {"port": "", "agent": " ".join(f"{port.name}=" for port in DATA_PORTS)}


# Shows the size of its terminal whenever that changes.
WATCH = """sh -c "trap 'stty size' WINCH; echo watching; while :; do sleep 0.1; done\""""


def read_so_far(process: subprocess.Popen[bytes], path: Path) -> int:
    """Bytes that a process has read of a file; 0 before it has opened it."""
    assert process.poll() is None, "it has ended already"
    for fd in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if fd.samefile(path):
                info = Path(f"/proc/{process.pid}/fdinfo/{fd.name}").read_text()
                return int(info.split()[1])
    return 0


class Host:
    """qgactl, for one guest and one way to it."""

    def __init__(self, guest: Guest, way: str) -> None:
        self.guest = guest
        self.way = way
        self.ports = [port.name for port in DATA_PORTS] if way == "port" else [None]
        self.env = {
            **environment(f"unix:{guest.channel_path()}"),
            "QGA_DATA_PORT": WAYS[way],
            "TERM": "xterm",
        }

    def run(self, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        done = subprocess.run(
            [*QGACTL, *SLOW, *arguments],
            input=stdin,
            capture_output=True,
            env=self.env,
            timeout=300,
            check=False,
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*QGACTL, *SLOW, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            env=self.env,
        )

    def terminal(self, *arguments: str) -> Terminal:
        return Terminal([*QGACTL, *SLOW, *arguments], self.env, rows=30, columns=90)


@pytest.fixture(params=list(WAYS))
def host(request: pytest.FixtureRequest, guest: Guest) -> Iterator[Host]:
    guest.run(["mkdir", "-p", FOLDER])
    yield Host(guest, request.param)
    guest.run(["rm", "-rf", FOLDER])


@pytest.fixture
def large(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large"
    path.write_bytes(random.Random(1).randbytes(SIZES[host.way]))
    return path


def checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def in_guest(guest: Guest, script: str) -> str:
    return guest.run(["/bin/sh", "-c", script], timeout=120).stdout


def test_a_large_file_both_ways(host: Host, large: Path, tmp_path: Path) -> None:
    status, out, err = host.run("--json", "cp", str(large), f"guest:{FOLDER}/")
    assert (status, err) == (0, "")
    summary = json.loads(out)
    assert (summary["files"], summary["bytes"]) == (1, SIZES[host.way])
    assert summary["port"] in host.ports
    sums = in_guest(host.guest, f"sha256sum <{FOLDER}/large")
    assert sums.split()[0] == checksum(large)
    status, out, err = host.run("--json", "cp", f"guest:{FOLDER}/large", str(tmp_path))
    assert (status, err) == (0, "")
    assert json.loads(out)["port"] in host.ports
    assert checksum(tmp_path / "large") == checksum(large)


def test_a_directory_both_ways(host: Host, tmp_path: Path) -> None:
    source = tmp_path / "web site"
    (source / "images/-old").mkdir(parents=True)
    (source / "index.html").write_text("index")
    (source / "images/a\n'b' \"ü\" $c").write_text("odd")
    (source / "images/-old/large").write_bytes(bytes(1024 * 1024))
    (source / "latest").symlink_to("images/-old")
    (source / "index.html").chmod(0o640)
    (source / "images").chmod(0o750)
    assert host.run("cp", "-r", str(source), f":{FOLDER}") == (0, "", "")
    told = in_guest(host.guest, f"cd '{FOLDER}/web site'; stat -c '%a' index.html images")
    assert told.split() == ["640", "750"]
    assert host.run("cp", "-r", f":{FOLDER}/web site", str(tmp_path / "back")) == (0, "", "")
    subprocess.run(["diff", "-r", "--no-dereference", source, tmp_path / "back"], check=True)
    assert (tmp_path / "back/index.html").stat().st_mode & 0o777 == 0o640


@pytest.fixture
def loop_device(host: Host) -> Iterator[str]:
    make = f"modprobe loop; truncate --size 4M {FOLDER}/disk"
    device = in_guest(host.guest, f"{make}; losetup --find --show {FOLDER}/disk").strip()
    assert device.startswith("/dev/loop")
    yield device
    in_guest(host.guest, f"losetup --detach {device}")


def test_a_device_of_the_guest(host: Host, tmp_path: Path, loop_device: str) -> None:
    image = tmp_path / "image"
    image.write_bytes(os.urandom(3 * 1024 * 1024))
    look = f"head --bytes 3M {loop_device} | sha256sum; stat -c %F {loop_device}"
    before = in_guest(host.guest, f"ln -s {loop_device} {FOLDER}/link; {look}")
    status, _, err = host.run("cp", str(image), f":{FOLDER}/link")
    assert status == 1
    assert f"is a symbolic link to {loop_device}, a block device: name that to write to it" in err
    assert in_guest(host.guest, look) == before
    assert host.run("cp", str(image), f":{loop_device}") == (0, "", "")
    assert in_guest(host.guest, look) == f"{checksum(image)}  -\nblock special file\n"


def test_what_is_there_in_the_guest(host: Host, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(os.urandom(1024 * 1024))
    source.chmod(0o755)
    make = f"cd {FOLDER}; install --mode 640 --owner daemon --group mail /dev/null there"
    read = "cat fifo >from-fifo 2>/dev/null </dev/null &"
    in_guest(host.guest, f"{make}; ln -s there link; mkfifo fifo; {read}")
    for name in ("link", "fifo", "new"):
        assert host.run("cp", str(source), f":{FOLDER}/{name}") == (0, "", "")
    found = in_guest(host.guest, f"cd {FOLDER}; stat -c '%n %F %U %G %a' there link fifo new")
    assert found.splitlines() == [
        "there regular file daemon mail 640",
        "link symbolic link root root 777",
        "fifo fifo root root 644",
        "new regular file root root 755",
    ]
    sums = in_guest(host.guest, f"cd {FOLDER}; sha256sum there new from-fifo")
    assert [line.split()[0] for line in sums.splitlines()] == [checksum(source)] * 3
    names = ["fifo", "from-fifo", "link", "new", "there"]
    assert in_guest(host.guest, f"ls -A {FOLDER}").split() == names


def test_cat(host: Host) -> None:
    assert host.run("cat", "/etc/hostname", "/etc/hosts") == (
        0,
        in_guest(host.guest, "cat /etc/hostname /etc/hosts"),
        "",
    )


@pytest.mark.parametrize("arguments", [("large", f":{FOLDER}/"), (f":{FOLDER}/source", "copy")])
def test_an_interrupted_copy_leaves_nothing(
    host: Host, agent: AgentSocket, large: Path, tmp_path: Path, arguments: tuple[str, str]
) -> None:
    host.guest.run(["fallocate", "--length", "256M", f"{FOLDER}/source"])
    before = open_files(host.guest, main_pid(host.guest))
    names = {"large": str(large), "copy": str(tmp_path / "copy")}
    agent.close()
    process = host.start("cp", *(names.get(name, name) for name in arguments))

    def half_done() -> bool:
        return bool(os.listdir(tmp_path)) or read_so_far(process, large) > SOME

    wait_for(half_done, "the copy to begin")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out, err) == (130, b"", b"")
    assert in_guest(host.guest, f"ls -A {FOLDER}").split() == ["source"]
    assert os.listdir(tmp_path) == []
    with host.guest.connect() as other:
        wait_until_free(other)
    agents = main_pid(host.guest)
    wait_for(lambda: open_files(host.guest, agents) == before, "all files to be closed")


def test_an_interrupted_copy_is_resumed(host: Host, large: Path) -> None:
    process = host.start("cp", "--resume", str(large), f":{FOLDER}/")
    wait_for(lambda: read_so_far(process, large) > PIECE + SOME, "a part of the copy")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err == b"qgactl: partial copy kept; run the same command again to resume\n"
    assert in_guest(host.guest, f"ls -A {FOLDER}").split() == [".large.qga-part"]
    assert host.run("cp", "--resume", str(large), f":{FOLDER}/") == (0, "", "")
    assert in_guest(host.guest, f"ls -A {FOLDER}").split() == ["large"]
    assert in_guest(host.guest, f"sha256sum <{FOLDER}/large").split()[0] == checksum(large)


def test_exec_with_much_input_and_output(host: Host, large: Path) -> None:
    data = large.read_bytes()[: 4 * 1024 * 1024]
    done = subprocess.run(
        [*QGACTL, *SLOW, "exec", "--", "sh", "-c", "cat; echo end >&2; exit 3"],
        input=data,
        capture_output=True,
        env=host.env,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (3, b"end\n")
    assert done.stdout == data


def test_output_appears_while_the_program_runs(host: Host) -> None:
    gate = f"{FOLDER}/gate"
    host.guest.run(["mkfifo", gate])
    process = host.start("exec", "--", "sh", "-c", f"echo first; cat {gate}")
    assert process.stdout
    assert process.stdout.readline() == b"first\n"
    assert process.poll() is None
    in_guest(host.guest, f"echo second >{gate}")
    assert process.communicate(timeout=300) == (b"second\n", b"")
    assert process.returncode == 0


def test_an_interrupted_program_is_gone(host: Host) -> None:
    process = host.start("exec", "--", "sh", "-c", "echo $$; exec sleep 1000")
    assert process.stdout
    pid = int(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=300) == (b"", b"")
    assert process.returncode == 130
    assert in_guest(host.guest, f"[ -d /proc/{pid} ] || echo gone") == "gone\n"
    with host.guest.connect() as other:
        assert not state_of_port(other)["busy"]


def test_a_shell(host: Host) -> None:
    with host.terminal("shell") as screen:
        screen.type("PS1='ready'':'; stty -echo\r")
        screen.expect("ready:")
        screen.type("stty size; echo $HOME $TERM\r")
        screen.expect("30 90\r\n/root xterm\r\n")
        screen.type(f"{WATCH}\r")
        screen.expect("watching\r\n")
        screen.resize(40, 120)
        screen.expect("40 120\r\n")
        screen.type("\x03")
        screen.expect("ready:")
        screen.type("exit 5\r")
        assert screen.wait() == 5
        assert screen.is_as_before


def test_a_shell_is_left(host: Host) -> None:
    with host.terminal("shell", "--", "sh", "-c", "echo pid: $$; exec sleep 1000") as screen:
        screen.expect("pid: ")
        pid = int(screen.expect("\r\n"))
        screen.type("\r~.")
        assert screen.wait() == 129
        assert screen.is_as_before
    wait_for(lambda: in_guest(host.guest, f"[ -d /proc/{pid} ] || echo gone"), "its end")
