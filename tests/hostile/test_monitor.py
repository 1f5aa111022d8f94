"""qgactl snapshot, and a QEMU that its guest has taken over: it sends whatever it likes."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qga.client.errors import LONGEST_ERROR, ConnectError
from qga.client.hosts import qmp
from tests.hostile.monitor import Qemu, disk
from tests.hostile.scenarios import RAW_ESCAPES
from tests.hostile.test_commands import FAULT
from tests.integration.qgactl_process import QGACTL, environment
from tests.unit.client_peer import Filesystems, Peer

pytestmark = pytest.mark.timeout(60)

ESCAPES = "".join(RAW_ESCAPES)

LIMITED = ("prlimit", f"--fsize={2**44}")  # as on ext4; a tmpfs takes any size


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Peer]:
    handlers = {
        **Filesystems().handlers,
        "guest-get-fsinfo": lambda _: [],
        "qga-get-freeze": lambda _: RuntimeError("CommandNotFound", "no such command"),
    }
    peer = Peer(tmp_path / "agent", handlers)
    yield peer
    peer.close()


def snapshot(qemu: Qemu, agent: Peer, *words: str, **variables: str) -> tuple[int, str, str]:
    """Into the directory `copy`."""
    place = str(Path(qemu.path).parent / "copy")
    done = subprocess.run(
        [*LIMITED, *QGACTL, *words[:1], "snapshot", place, "--qmp", qemu.path, *words[1:]],
        env={**environment(agent.address), **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert not FAULT.search(done.stderr), done.stderr
    assert not any(each in done.stdout + done.stderr for each in RAW_ESCAPES)
    return done.returncode, done.stdout, done.stderr


REPLIES: dict[str, Any] = {
    "nothing inserted": [disk(inserted=None)],
    "more than a file can have": [disk(size=2**64 - 1)],
    "more than a filesystem can have": [disk(size=2**63 - 1)],
    "less than nothing": [disk(size=-1)],
    "not a disk": [7],
    "an endless name": [disk(ESCAPES * 10_000, size=2**63 - 1)],
    "a text": ESCAPES,
    "an error": {"error": {"class": "GenericError", "desc": ESCAPES}},
    "an endless error": {"error": {"class": "GenericError", "desc": "x" * 1_000_000}},
    "endless names": [disk("x" * 100_000, inserted=None)] * 30,
    "no error": {"error": ESCAPES},
}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_disks_that_cannot_be(tmp_path: Path, agent: Peer, reply: Any) -> None:
    with Qemu(tmp_path / "qmp", **{"query-block": reply}) as qemu:
        status, out, err = snapshot(qemu, agent, "--json", "--format", "raw")
    assert (status, out) == (1, "")
    assert err.startswith(("qgactl: unix:", "qgactl: snapshot: "))
    assert len(err) < LONGEST_ERROR * len("\\U0010ffff")  # each character may be an escape
    assert not (tmp_path / "copy").exists()


def test_endless_jobs_that_keep_a_disk_busy(tmp_path: Path, agent: Peer) -> None:
    job = {"id": "x" * 100_000, "status": "running", "current-progress": 0, "total-progress": 1}
    busy = {"error": {"class": "GenericError", "desc": "Node 'vda' is busy"}}
    with Qemu(tmp_path / "qmp", **{"query-jobs": [job] * 30, "transaction": busy}) as qemu:
        status, _, err = snapshot(qemu, agent, "--json", "--external")
    assert (status, "end it with job-cancel" in err) == (1, True)
    assert len(err) < LONGEST_ERROR * len("\\U0010ffff")


def test_a_refused_external_snapshot_is_asked_about_once(tmp_path: Path, agent: Peer) -> None:
    """The answer could differ, or take its time again."""
    refused = {"error": {"class": "GenericError", "desc": "no"}}
    with Qemu(tmp_path / "qmp", transaction=refused) as qemu:
        assert snapshot(qemu, agent, "--json", "--external")[0] == 1
    assert qemu.commands.count("query-block") == 2  # which disks there are, and which are used


OWNERS = {
    "no process ID": (9_999_999_999, 1),
    "all processes": (0, 1),
    "one that has not begun": (1, 10**20 - 1),
    "endless": (1, 10**4_000),
}


@pytest.mark.parametrize("owner", OWNERS.values(), ids=OWNERS)
def test_files_of_processes_that_cannot_be(
    tmp_path: Path, agent: Peer, owner: tuple[int, int]
) -> None:
    """QEMU knows the namespace: it is noted with each file."""
    pid, start = owner
    namespace = os.stat("/proc/self/ns/pid").st_ino
    note = f"qga-00000000 of process {pid} since {start} in namespace {namespace}"
    files = [{"fdset-id": 1, "fds": [{"fd": 7, "opaque": note}]}]
    with Qemu(tmp_path / "qmp", **{"query-fdsets": files}) as qemu:
        assert snapshot(qemu, agent)[0] == 0


NAMES = ["../../etc/passwd", "..", ".", "", "-rf", "/a", "_a", "a\nb", ESCAPES, "диск", "\ud800"]


@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_names_of_disks(tmp_path: Path, agent: Peer, locale: str) -> None:
    """Each is a plain file in the directory, and no text moves the cursor."""
    blocks = [disk(name) for name in [*NAMES, "x" * 5000, "x" * 5001]]
    with Qemu(tmp_path / "qmp", **{"query-block": blocks}) as qemu:
        status, out, err = snapshot(qemu, agent, "--json", LC_ALL=locale)
        assert (status, err) == (0, "")
        files = [each["file"] for each in json.loads(out)["disks"]]
        (tmp_path / "copy").rename(tmp_path / "first")
        assert snapshot(qemu, agent, "--no-color", LC_ALL=locale)[0] == 0
    assert sorted([*files, "snapshot.json"]) == sorted(os.listdir(tmp_path / "first"))
    assert len(set(files)) == len(blocks)
    assert not [name for name in files if name.startswith(("-", ".")) or not name.isascii()]


def test_thousands_of_disks_of_one_name(tmp_path: Path, agent: Peer) -> None:
    reply = [disk(size=2**63 - 1)] * 5000
    with Qemu(tmp_path / "qmp", **{"query-block": reply}) as qemu:
        assert snapshot(qemu, agent, "--json", "--format", "raw")[0] == 1


def test_bytes_that_never_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is always one to read, also when the time is over."""
    monkeypatch.setattr(qmp, "CHUNK", 1)
    with (
        Qemu(tmp_path / "qmp", **{"query-block": b" " * qmp.MOST * 2}) as qemu,
        qmp.Qmp(qemu.path, 5) as client,
        pytest.raises(ConnectError, match="QEMU did not respond"),
    ):
        client.execute("query-block", seconds=0.1)


@pytest.mark.parametrize("call", ["sendall", "recv"])
@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOMEM, "Cannot allocate memory"),
        (errno.ENOBUFS, "No buffer space available"),
        (errno.EPIPE, qmp.GONE),
        (errno.ECONNRESET, qmp.GONE),
    ],
)
def test_a_qemu_has_only_gone_if_the_connection_says_so(
    tmp_path: Path, call: str, number: int, text: str
) -> None:
    """This host may lack something instead."""

    class Failing(socket.socket):
        pass

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    setattr(Failing, call, fail)
    with Qemu(tmp_path / "qmp") as qemu, qmp.Qmp(qemu.path, 5) as client:
        client._socket = Failing(fileno=client._socket.detach())
        with pytest.raises(ConnectError, match=re.escape(text)):
            client.execute("query-block")


def test_a_user_who_leaves_a_silent_qemu(tmp_path: Path, agent: Peer) -> None:
    """Cleaning up waits for QEMU once, not once for each command."""
    with Qemu(tmp_path / "qmp", **{"query-jobs": b""}) as qemu:
        argv = ["-c", "from qga.client.snapshots import qemu; qemu.CLEAN_UP_PATIENCE = 1.0"]
        argv[1] += "; from qga.ctl.main import main; main()"
        argv += ["snapshot", str(tmp_path / "copy"), "--qmp", qemu.path]
        process = subprocess.Popen([QGACTL[0], *argv], env=environment(agent.address))
        while "query-jobs" not in qemu.commands:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("ends_well", [True, False])
def test_a_directory_that_its_owner_replaces(tmp_path: Path, agent: Peer, ends_well: bool) -> None:
    """No file is created in, or removed from, where the link leads."""
    copy, moved, other = tmp_path / "copy", tmp_path / "moved", tmp_path / "other"
    other.mkdir()
    (other / "vda.qcow2").write_text("precious")
    freeze = agent.handlers["guest-fsfreeze-freeze"]

    def replace(arguments: dict[str, Any]) -> Any:
        copy.rename(moved)
        copy.symlink_to(other)
        return freeze(arguments) if ends_well else RuntimeError("GenericError", "no")

    agent.handlers["guest-fsfreeze-freeze"] = replace
    with Qemu(tmp_path / "qmp") as qemu:
        assert snapshot(qemu, agent, "--json")[0] == (0 if ends_well else 1)
    assert os.listdir(other) == ["vda.qcow2"]
    assert sorted(os.listdir(moved)) == (["snapshot.json", "vda.qcow2"] if ends_well else [])


def test_times_of_a_freeze_that_cannot_be(tmp_path: Path, agent: Peer) -> None:
    state = {"status": "frozen", "seconds": 1e308, "left-out": []}
    agent.handlers["qga-get-freeze"] = lambda _: state
    with Qemu(tmp_path / "qmp") as qemu:
        status, out, _ = snapshot(qemu, agent, "--json")
    freeze = json.loads(out)["freeze"]
    assert status == 0
    assert 0 <= freeze["before"] + freeze["seconds"] < 30
    assert freeze["before"] >= 0


def test_a_guest_that_has_thawed_at_once(tmp_path: Path, agent: Peer) -> None:
    agent.handlers["qga-get-freeze"] = lambda _: {"status": ESCAPES, "left-out": []}
    with Qemu(tmp_path / "qmp") as qemu:
        status, _, err = snapshot(qemu, agent, "--json")
        assert (status, "the freeze did not last" in err) == (1, True)
        status, out, _ = snapshot(qemu, agent, "--json", "--crash-consistent")
    assert (status, json.loads(out)["consistent"]) == (0, False)


FAILS_ONCE = """
import errno, os
errors, sync = [errno.ENOSPC], os.fsync
def fsync(fd):
    if errors:
        raise OSError(errors[0], os.strerror(errors.pop()))
    sync(fd)
os.fsync = fsync
from qga.ctl.main import main
main()
"""


@pytest.mark.parametrize("form", ["qcow2", "raw"])
def test_a_copy_whose_last_bytes_do_not_reach_the_disk(
    tmp_path: Path, agent: Peer, form: str
) -> None:
    """A network filesystem may report only then that it has no space."""
    with Qemu(tmp_path / "qmp") as qemu:
        argv = [QGACTL[0], "-c", FAILS_ONCE, "--json", "snapshot", str(tmp_path / "copy")]
        done = subprocess.run(
            [*argv, "--format", form, "--qmp", qemu.path],
            env=environment(agent.address),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert f"cannot write {tmp_path}/copy/vda.{form}: No space left on device" in done.stderr
    assert not (tmp_path / "copy").exists()


REFUSED = {"error": {"class": "GenericError", "desc": "Node is in use"}}


@pytest.mark.parametrize("command", ["blockdev-reopen", "blockdev-del"])
@pytest.mark.parametrize("reply", [REFUSED, b"[]\n"])
def test_a_copy_that_qemu_does_not_close(
    tmp_path: Path, agent: Peer, command: str, reply: Any
) -> None:
    """Until then, the tables of a qcow2 file may be in the memory of QEMU only."""
    with Qemu(tmp_path / "qmp", **{command: reply}) as qemu:
        assert snapshot(qemu, agent, "--json")[:2] == (1, "")
    assert not (tmp_path / "copy").exists()


def test_a_qemu_that_cannot_reopen(tmp_path: Path, agent: Peer) -> None:
    """Before QEMU 6.1."""
    unknown = {"error": {"class": "CommandNotFound", "desc": "not found"}}
    with Qemu(tmp_path / "qmp", **{"blockdev-reopen": unknown}) as qemu:
        assert snapshot(qemu, agent)[0] == 0


NOTES_SYNCS = """
import os
from qga.client.hosts.qmp import Qmp
sync = os.fsync
def fsync(fd):
    sync(fd)
    with open({file!r}, "a") as file:
        file.write("sync ")
os.fsync = fsync
Qmp.execute.__kwdefaults__["seconds"] = 3.0
from qga.ctl.main import main
main()
"""


def test_a_copy_on_a_slow_disk(tmp_path: Path, agent: Peer) -> None:
    """QEMU waits for the disk, too, with its guest: it gets time, and little is left to write."""
    notes = tmp_path / "notes"

    def close(_: dict[str, Any]) -> dict[str, Any]:
        time.sleep(3.5)
        with notes.open("a") as file:
            file.write("close ")
        return {}

    with Qemu(tmp_path / "qmp", **{"blockdev-reopen": close, "blockdev-del": close}) as qemu:
        argv = [QGACTL[0], "-c", NOTES_SYNCS.format(file=str(notes)), "snapshot"]
        done = subprocess.run(
            [*argv, str(tmp_path / "copy"), "--qmp", qemu.path],
            env=environment(agent.address),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert notes.read_text().startswith("sync close close sync ")
