"""What a qgactl that was killed has left in QEMU; and that of one that runs, which stays."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qga.client.hosts.qmp import Qmp
from qga.client.snapshots.jobs import jobs
from tests.integration.qgactl_process import QGACTL, environment
from tests.integration.qgactl_process import qgactl as run_qgactl
from tests.integration.snapshot_machine import PATIENCE, SIZE, Machine, wait_until
from tests.integration.snapshot_machine import machine as machine
from tests.unit.client_peer import Start
from tests.unit.conftest import start as start

pytestmark = pytest.mark.timeout(60)

NAMESPACE = ["unshare", "--user", "--map-root-user"]


def test_what_a_killed_qgactl_has_left(machine: Machine) -> None:
    """The next snapshot ends it: QEMU would keep a file open that takes space when it is gone."""
    kill(machine.start_slow())
    shutil.rmtree(machine.folder / "copy")
    assert (len(machine.ask("query-jobs")), len(machine.ask("query-fdsets"))) == (1, 1)
    assert machine.snapshot("--disk", "root")[0] == 0
    shutil.rmtree(machine.folder / "copy")
    machine.assert_clean()


@pytest.fixture
def beside(machine: Machine, start: Start) -> Iterator[subprocess.Popen[bytes]]:
    """Another qgactl, whose copy waits for it; nothing may happen to that."""
    process = machine.start_slow()
    process.send_signal(signal.SIGSTOP)
    machine.peer = start(machine.peer.handlers)  # the other one serves one client
    machine.socket = machine.folder / "qmp2"
    yield process
    process.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=PATIENCE)[1] == b""
    assert process.returncode == 0


@pytest.mark.usefixtures("beside")
def test_a_snapshot_beside_another(machine: Machine) -> None:
    words = ["snapshot", str(machine.folder / "second"), "--disk", "root"]
    status, _, err = run_qgactl(*words, "--qmp", str(machine.socket), address=machine.peer.address)
    assert (status, err) == (0, "")


@pytest.mark.usefixtures("beside")
def test_a_snapshot_in_another_container(machine: Machine) -> None:
    """The process IDs of the other one mean nothing there: none of them is running."""
    words = ["snapshot", str(machine.folder / "second"), "--disk", "root"]
    argv = [*NAMESPACE, "--pid", "--fork", "--mount-proc", *QGACTL, *words]
    second = subprocess.run(
        [*argv, "--qmp", str(machine.socket)],
        env=environment(machine.peer.address),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (second.returncode, second.stderr) == (0, b"")


@pytest.mark.usefixtures("beside")
def test_a_disk_that_is_being_copied(machine: Machine) -> None:
    """The error names the job: that of a qgactl in another container may never end."""
    with Qmp(str(machine.socket), PATIENCE) as qmp:
        (job,) = [job.id for job in jobs(qmp, lambda _: True)]
        qmp.execute("job-pause", {"id": job})
    words = ["snapshot", str(machine.folder / "second"), "--disk", "slow"]
    status, _, err = run_qgactl(*words, "--qmp", str(machine.socket), address=machine.peer.address)
    with Qmp(str(machine.socket), PATIENCE) as qmp:
        qmp.execute("job-resume", {"id": job})
    assert status == 1
    assert f"job {job} of QEMU uses it; wait for its end, or end it with job-cancel" in err


def test_an_external_snapshot_of_the_disk_that_was_copied(machine: Machine) -> None:
    kill(machine.start_slow())
    shutil.rmtree(machine.folder / "copy")
    status, _, err = machine.snapshot("--disk", "slow", "--external")
    assert (status, err) == (0, "")
    assert machine.ask("query-jobs") == []


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A directory with space for one copy, and a half, in the namespaces of this process."""
    place = tmp_path / "place"
    place.mkdir()
    script = f'mount -t tmpfs -o size={SIZE * 3 // 2} none "$0" && echo ready && exec cat'
    process = subprocess.Popen(
        [*NAMESPACE, "--mount", "sh", "-c", script, str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        yield process.pid, place


def test_the_space_that_it_holds(machine: Machine, small: tuple[int, Path]) -> None:
    """QEMU keeps its file open, also when that is removed: there would never be space again."""
    pid, place = small
    enter = ["nsenter", "--target", str(pid), "--user", "--preserve-credentials", "--mount", "--"]
    qgactl = [*enter, *QGACTL, "snapshot", str(place / "copy"), "--qmp", str(machine.socket)]
    env = environment(machine.peer.address)
    first = subprocess.Popen([*qgactl, "--disk", "slow", "--format", "raw"], env=env)
    seen = f"/proc/{pid}/root{place}"
    wait_until(lambda: "guest-fsfreeze-thaw" in machine.commands(), "the thaw")
    kill(first)
    wait_until(lambda: free(seen) < SIZE, "the space is used")
    shutil.rmtree(f"{seen}/copy")
    assert free(seen) < SIZE
    again = [*qgactl, "--disk", "root"]
    done = subprocess.run(again, env=env, capture_output=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def free(place: str) -> int:
    state = os.statvfs(place)
    return state.f_bavail * state.f_frsize


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()
