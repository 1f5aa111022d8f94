"""The life of the process: state directory, pid file, signals, going to the background."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from qga.daemon import PidFile, acquire_when_thawed
from qga.service.log import Log
from qga.service.state import State

DEADLINE = 20.0

Process = subprocess.Popen[str]


def eventually(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds; fail after the deadline."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def asked(path: Path, command: str, /, **arguments: object) -> object:
    """The result of a command; None if it is an error."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(DEADLINE)
        connection.connect(str(path))
        request = {"execute": command, "arguments": arguments}
        connection.sendall(json.dumps(request).encode() + b"\n")
        return json.loads(connection.makefile().readline()).get("return")


def answers(path: Path) -> bool:
    with suppress(OSError):
        return asked(path, "guest-ping") == {}
    return False


def listener_pid(path: Path) -> int:
    """The process that listens on a unix socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int(struct.unpack("=iII", credentials)[0])


def is_running(pid: int) -> bool:
    """Whether the process is running. A zombie is not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


class Place:
    """A directory with everything that an agent needs, and the processes started in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "socket"
        self.pidfile = folder / "pid"
        self.processes: list[Process] = []

    def start(self, *options: str, **popen_options: object) -> Process:
        command = [sys.executable, "-m", "qga", "-m", "unix-listen", "-p", str(self.socket)]
        process: Process = subprocess.Popen(  # type: ignore[call-overload]
            [*command, "-t", str(self.folder), *options],
            env={**os.environ, "QGA_CONF": "/nonexistent"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **popen_options,
        )
        self.processes.append(process)
        return process

    def serve(self, *options: str) -> Process:
        process = self.start(*options)
        eventually(lambda: answers(self.socket) or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        return process

    def fail(self, *options: str) -> str:
        """The standard error of an agent that fails to start."""
        out, err = (process := self.start(*options)).communicate(timeout=DEADLINE)
        assert (process.returncode, out) == (1, "")
        return str(err)

    def daemon_pid(self) -> int:
        return int(self.pidfile.read_text())

    def clean_up(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        with suppress(OSError, ValueError):
            if self.daemon_pid() != os.getpid():
                os.kill(self.daemon_pid(), signal.SIGKILL)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.clean_up()


def test_the_pid_file_of_a_frozen_agent_comes_with_the_thaw(place: Place) -> None:
    state = State(str(place.folder))
    state.mark_frozen()
    pidfile = PidFile(str(place.pidfile))
    acquire_when_thawed(pidfile, state, Log())
    assert not place.pidfile.exists()
    state.clear_frozen()
    assert place.daemon_pid() == os.getpid()
    pidfile.release()
    assert not place.pidfile.exists()


def test_a_pid_file_that_its_owner_removes_under_our_hands_is_made_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    lockf = fcntl.lockf
    removals = iter([place.pidfile])

    def remove_and_lock(fd: int, operation: int) -> None:
        for path in removals:
            path.unlink()
        lockf(fd, operation)

    monkeypatch.setattr(fcntl, "lockf", remove_and_lock)
    pidfile = PidFile(str(place.pidfile))
    pidfile.acquire()
    assert place.daemon_pid() == os.getpid()
    pidfile.release()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(place: Place, number: int) -> None:
    process = place.serve()
    process.send_signal(number)
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out, err) == (0, "", "")
    assert not place.socket.exists()
    assert (place.folder / "qga.state").read_text() == "[global]\nfd_counter=1000\n"


def test_without_a_daemon_a_pid_file_is_written_only_on_request(place: Place) -> None:
    process = place.serve("-f", str(place.pidfile))
    assert place.pidfile.read_text() == f"{process.pid}\n"
    assert stat.S_IMODE(place.pidfile.stat().st_mode) == 0o600
    process.terminate()
    assert process.wait(DEADLINE) == 0
    assert not place.pidfile.exists()


def test_a_stale_pid_file_is_taken_over(place: Place) -> None:
    place.pidfile.write_text("123456789\n")
    process = place.serve("-f", str(place.pidfile))
    assert place.pidfile.read_text() == f"{process.pid}\n"


@pytest.mark.parametrize("options", [(), ("-d",)])
def test_a_locked_pid_file_is_left_alone(place: Place, options: tuple[str, ...]) -> None:
    place.pidfile.write_text("4711\n")
    with place.pidfile.open("r+") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        said = place.fail("-f", str(place.pidfile), *options)
    assert said == (
        "qemu-ga: error: Cannot lock pid file: Resource temporarily unavailable "
        f"('{place.pidfile}' belongs to process 4711)\n"
        "qemu-ga: error: error initializing guest agent\n"
    )
    assert place.pidfile.read_text() == "4711\n"
    assert not place.socket.exists()
    place.pidfile.unlink()


def test_a_second_agent_leaves_the_first_one_serving(place: Place) -> None:
    first = place.serve("-f", str(place.pidfile))
    said = place.fail("-f", str(place.pidfile))
    assert f"belongs to process {first.pid}" in said
    assert answers(place.socket)
    assert place.daemon_pid() == first.pid


@pytest.mark.parametrize("options", [(), ("-d",)])
def test_what_prevents_the_start(place: Place, options: tuple[str, ...]) -> None:
    """Each fault leads to exit status 1 and a reason on standard error, also with -d."""
    pidfile = ("-f", str(place.pidfile))
    none = place.folder / "none"
    assert place.fail(*options, "-f", f"{none}/pid") == (
        f"qemu-ga: error: Could not create '{none}/pid': No such file or directory\n"
        "qemu-ga: error: error initializing guest agent\n"
    )
    assert place.fail(*options, *pidfile, "-t", str(none)) == (
        f"qemu-ga: error: state directory '{none}' does not exist or is not a directory\n"
        "qemu-ga: error: error initializing guest agent\n"
    )
    assert place.fail(*options, *pidfile, "-l", f"{none}/log") == (
        f"qemu-ga: error: unable to open specified log file '{none}/log': "
        "No such file or directory\n"
        "qemu-ga: error: error initializing guest agent\n"
    )
    said = place.fail(*options, *pidfile, "-p", f"{none}/socket")
    assert f"{none}/socket: No such file or directory\n" in said
    assert said.endswith(
        "qemu-ga: error: failed to create guest agent channel\n"
        "qemu-ga: error: failed to initialize guest agent channel\n"
        "qemu-ga: error: error initializing guest agent\n"
    )
    (place.folder / "qga.state").write_text("garbage\n")
    assert ", line 1: a key needs a group header such as [general] above it; repair" in place.fail(
        *options, *pidfile
    )
    assert not place.pidfile.exists()


def test_a_missing_device_is_named(place: Place) -> None:
    said = place.fail("-m", "virtio-serial", "-p", "/dev/virtio-ports/none")
    assert "error opening channel '/dev/virtio-ports/none': No such file or directory" in said


def test_a_fault_is_reported_in_the_log_and_on_stderr(place: Place) -> None:
    log = place.folder / "log"
    said = place.fail("-l", str(log), "-p", "/nonexistent/socket")
    assert said.count("failed to create guest agent channel") == 1
    assert log.read_text().count(": error: failed to create guest agent channel\n") == 1


def test_a_daemon(place: Place) -> None:
    starter = place.start("-d", "-f", str(place.pidfile))
    out, err = starter.communicate(timeout=DEADLINE)
    assert (starter.returncode, out, err) == (0, "", "")
    assert (
        asked(place.socket, "guest-ping") == {}
    )  # no waiting: it serves once the starter has ended
    pid = place.daemon_pid()
    assert pid != starter.pid
    assert os.getsid(pid) == pid
    process = Path(f"/proc/{pid}")
    assert (process / "cwd").readlink() == Path("/")
    assert {(process / "fd" / str(fd)).readlink() for fd in (0, 1, 2)} == {Path("/dev/null")}
    assert "Umask:\t0022" in (process / "status").read_text()
    assert stat.S_IMODE(place.pidfile.stat().st_mode) == 0o600
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not is_running(pid))
    assert not place.socket.exists()
    assert not place.pidfile.exists()


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_a_daemon_keeps_the_umask_that_it_was_started_with(place: Place, umask: int) -> None:
    options = ("-d", "-f", str(place.pidfile), "-l", str(place.folder / "log"))
    assert place.start(*options, umask=umask).wait(DEADLINE) == 0
    new = place.folder / "new"
    assert asked(place.socket, "guest-file-open", path=str(new), mode="w") == 1000
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in place.folder.iterdir()}
    assert modes == {
        "socket": 0o777 & ~umask,
        "qga.state": 0o666 & ~umask,
        "new": 0o644 & ~umask,
        "log": 0o640 & ~umask,
        "pid": 0o600,
    }


def test_a_daemon_finds_its_relative_paths_again(place: Place) -> None:
    paths = ("-p", "s", "-f", "pid", "-l", "log", "-t", ".")
    python_path = str(Path(__file__).parents[2])
    starter = subprocess.run(
        [sys.executable, "-m", "qga", "-m", "unix-listen", "-d", *paths],
        cwd=place.folder,
        env={**os.environ, "PYTHONPATH": python_path, "QGA_CONF": "/nonexistent"},
        check=False,
        timeout=DEADLINE,
    )
    assert starter.returncode == 0
    pid = place.daemon_pid()
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not is_running(pid))
    assert sorted(os.listdir(place.folder)) == ["log", "qga.state"]


def test_a_daemon_takes_over_a_socket_from_the_service_manager(place: Place) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place.folder / "activated"))
        listener.listen()
        listener.settimeout(DEADLINE)
        os.set_inheritable(listener.fileno(), True)
        command = 'exec 3<&"$0" && export LISTEN_PID=$$ LISTEN_FDS=1 && exec "$@"'
        starter = subprocess.run(
            ["bash", "-c", command, str(listener.fileno()), sys.executable, "-m", "qga", "-d",
             "-t", str(place.folder), "-f", str(place.pidfile)],
            env={**os.environ, "QGA_CONF": "/nonexistent"},
            pass_fds=[listener.fileno()],
            check=False,
            timeout=DEADLINE,
        )  # fmt: skip
    assert starter.returncode == 0
    assert asked(place.folder / "activated", "guest-ping") == {}
    os.kill(place.daemon_pid(), signal.SIGTERM)


def test_a_daemon_waits_for_its_device_in_the_foreground(place: Place) -> None:
    """With -r the first process exits when the device appears, and not before."""
    device = place.folder / "tty"
    line = ("-d", "-r", "-m", "isa-serial", "-p", str(device), "-f", str(place.pidfile))
    starter = place.start(*line, "-l", str(place.folder / "log"))
    eventually(lambda: (place.folder / "log").exists() and "waiting until" in
               (place.folder / "log").read_text())  # fmt: skip
    assert starter.poll() is None
    main_fd, terminal_fd = os.openpty()
    device.symlink_to(os.ttyname(terminal_fd))
    assert starter.wait(DEADLINE) == 0
    pid = place.daemon_pid()
    assert is_running(pid)
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not is_running(pid))
    os.close(main_fd)
    os.close(terminal_fd)


def test_a_daemon_that_is_ended_while_it_waits_is_a_failed_start(place: Place) -> None:
    line = ("-d", "-r", "-m", "isa-serial", "-p", "/nonexistent", "-f", str(place.pidfile))
    starter = place.start(*line)
    eventually(lambda: place.pidfile.exists() and place.pidfile.read_text())
    eventually(lambda: "SigCgt:" in (status := Path(f"/proc/{place.daemon_pid()}/status")
               .read_text()) and _catches(status, signal.SIGTERM))  # fmt: skip
    os.kill(place.daemon_pid(), signal.SIGTERM)
    _, err = starter.communicate(timeout=DEADLINE)
    assert starter.returncode == 1
    assert "stopped by a signal before the channel could be opened" in err
    assert not place.pidfile.exists()


def _catches(status: str, number: int) -> bool:
    (line,) = (line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(line.split()[1], 16) & 1 << (number - 1))


def test_hangup_reopens_the_log(place: Place) -> None:
    log = place.folder / "log"
    process = place.serve("-v", "-l", str(log))
    log.rename(place.folder / "log.1")
    process.send_signal(signal.SIGHUP)
    eventually(log.exists)
    assert answers(place.socket)
    process.terminate()
    assert process.wait(DEADLINE) == 0
    assert "received signal num 15, quitting" in log.read_text()
    assert "Guest agent version 11.1.3" in (place.folder / "log.1").read_text()


def test_while_frozen_no_signal_ends_it_and_nothing_is_written(place: Place) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    (place.folder / "qga.state.isfrozen").write_text(f"[frozen]\nboot={boot}")
    log = place.folder / "log"
    process = place.serve("-f", str(place.pidfile), "-l", str(log), "-v")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        process.send_signal(number)
        assert answers(place.socket)
    assert process.poll() is None
    assert sorted(os.listdir(place.folder)) == ["qga.state.isfrozen", "socket"]


@pytest.mark.parametrize("options", [(), ("-d",)])
def test_filesystems_that_are_frozen_already_are_warned_of(
    place: Place, options: tuple[str, ...]
) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    marker = place.folder / "qga.state.isfrozen"
    uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
    marker.write_text(f"[frozen]\nboot={boot}thaw_at={uptime + 500:.0f}\n")
    process = place.start(*options, "-f", str(place.pidfile))
    assert process.stderr is not None
    warning = process.stderr.readline()
    assert warning.startswith(
        "qemu-ga: warning: previous instance appears to have exited with frozen filesystems"
    )
    assert re.search(r"thaws them in (49\d|500) s", warning)
    assert str(marker) in warning
    eventually(lambda: answers(place.socket))
    assert asked(place.socket, "guest-fsfreeze-status") == "frozen"
    assert not place.pidfile.exists()
    os.kill(listener_pid(place.socket), signal.SIGKILL)


@pytest.mark.parametrize(
    "text", ["", "[fro", "[frozen]\n", "\xff\0", "[frozen]\nthaw_at=9999999\n"]
)
def test_a_marker_that_says_nothing_is_not_believed(place: Place, text: str) -> None:
    marker = place.folder / "qga.state.isfrozen"
    marker.write_text(text)
    log = place.folder / "log"
    process = place.serve("-f", str(place.pidfile), "-l", str(log))
    eventually(lambda: not marker.exists())
    eventually(place.pidfile.exists)
    assert asked(place.socket, "guest-fsfreeze-status") == "thawed"
    assert asked(place.socket, "guest-get-host-name")
    assert f"{marker} is stale and ignored" in log.read_text()
    process.terminate()
    assert process.wait(DEADLINE) == 0


def test_a_daemon_without_standard_descriptors(tmp_path: Path) -> None:
    pidfile, socket_path = tmp_path / "pid", tmp_path / "socket"
    command = [sys.executable, "-m", "qga", "-d", "-m", "unix-listen", "-p", str(socket_path)]
    command += ["-t", str(tmp_path), "-f", str(pidfile)]
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
    assert subprocess.run(closed, check=False).returncode == 0
    pid = int(pidfile.read_text())
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(socket_path))
            client.sendall(b'{"execute":"guest-ping"}\n')
            assert client.recv(100) == b'{"return": {}}\n'
    finally:
        os.kill(pid, signal.SIGTERM)
