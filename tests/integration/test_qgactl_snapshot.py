"""qgactl snapshot: a real QEMU whose machine has nothing to boot, and an agent that is scripted."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from qga.client import GuestAgent
from qga.client.commands import freeze
from qga.client.errors import ThawFailed
from qga.client.hosts.qmp import Qmp
from tests.integration.qgactl_process import QGACTL, environment
from tests.integration.qgactl_process import qgactl as run_qgactl
from tests.integration.snapshot_machine import PATIENCE, Machine, mounted, wait_until
from tests.integration.snapshot_machine import machine as machine
from tests.unit.client_peer import Filesystems
from tests.unit.conftest import start as start

pytestmark = pytest.mark.timeout(60)


def content(path: Path) -> bytes:
    argv = ["qemu-img", "convert", "-O", "raw", str(path), f"{path}.content"]
    subprocess.run(argv, check=True)
    return Path(f"{path}.content").read_bytes()


def test_copies_of_the_writable_disks(machine: Machine) -> None:
    status, out, err = machine.snapshot("--disk", "root", "--disk", "data", json=True)
    assert (status, err) == (0, "")
    record = json.loads(out)
    copy = machine.folder / "copy"
    assert json.loads((copy / "snapshot.json").read_text()) == record
    for name in ("root", "data"):
        assert content(copy / f"{name}.qcow2") == (machine.folder / name).read_bytes()
    assert [disk["name"] for disk in record["disks"]] == ["root", "data"]
    assert record["consistent"] is True
    assert record["freeze"]["frozen"] == 2
    assert 0 < record["freeze"]["seconds"] < record["seconds"]
    assert {each["name"]: each["reason"] for each in record["skipped"]}["empty"] == "not asked for"
    freeze = [name for name in machine.commands() if "fsfreeze" in name]
    assert [name.rpartition("-")[2] for name in freeze] == ["freeze", "status", "status", "thaw"]
    machine.folder.joinpath("copy").rename(machine.folder / "kept")
    machine.assert_clean()


def test_which_disks_by_default(machine: Machine) -> None:
    status, out, _ = machine.snapshot("--format", "raw", "--disk", "root")
    assert status == 0
    assert (machine.folder / "copy/root.raw").read_bytes() == (machine.folder / "root").read_bytes()
    assert "Frozen for" in out
    assert "/copy/snapshot.json has the details" in out
    (machine.folder / "copy").rename(machine.folder / "first")
    with_all = run_qgactl(*("--json", *machine.options("--external")), address=machine.peer.address)
    record = json.loads(with_all[1])
    assert {each["name"]: each["reason"] for each in record["skipped"]} == {
        "temporary": "it is temporary (snapshot=on)",
        "fixed": "it is read-only",
        "empty": "it has no medium",
    }


def test_an_external_snapshot(machine: Machine) -> None:
    status, out, err = machine.snapshot("--external", "--disk", "root", "--disk", "data")
    assert (status, err) == (0, "")
    assert f"over {machine.folder}/data" in out
    blocks = {each["qdev"]: each["inserted"]["file"] for each in machine.ask("query-block")[:2]}
    assert str(machine.folder / "copy/root.qcow2") in str(blocks)
    record = json.loads((machine.folder / "copy/snapshot.json").read_text())
    assert record["disks"][0]["base"] == "root"
    assert machine.guest.frozen == 0


def test_the_guest_runs_while_its_disk_is_copied(machine: Machine) -> None:
    process = machine.start_slow()
    assert machine.guest.frozen == 0
    assert process.poll() is None
    assert process.communicate(timeout=PATIENCE)[1] == b""
    assert process.returncode == 0
    record = json.loads((machine.folder / "copy/snapshot.json").read_text())
    assert record["freeze"]["seconds"] < 2 < record["seconds"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_copy(machine: Machine, number: int) -> None:
    process = machine.start_slow()
    wait_until((machine.folder / "copy/slow.qcow2").exists, "the file")
    process.send_signal(number)
    assert process.communicate(timeout=PATIENCE)[1] == b""
    assert process.returncode == 128 + number
    machine.assert_clean()


def test_a_machine_that_ends_meanwhile(machine: Machine) -> None:
    process = machine.start_slow()
    machine.end()
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 3
    assert b"QEMU closed the QMP connection: has QEMU exited?" in err
    assert not (machine.folder / "copy").exists()


FAILURES = [
    ("guest-fsfreeze-freeze", ("GenericError", "hook has failed"), "hook has failed"),
    ("guest-fsfreeze-freeze", ("CommandNotFound", "no such command"), "no such command"),
]


@pytest.mark.parametrize(("command", "error", "reason"), FAILURES)
def test_a_freeze_that_fails(machine: Machine, command: str, error: Any, reason: str) -> None:
    machine.peer.handlers[command] = lambda _: RuntimeError(*error)
    status, out, err = machine.snapshot("--disk", "root")
    assert (status, out) == (1, "")
    assert reason in err
    assert err.endswith("; --crash-consistent takes the snapshot nevertheless\n")
    machine.assert_clean()
    status, out, err = machine.snapshot("--disk", "root", "--crash-consistent", json=True)
    assert status == 0
    assert "the snapshot is crash-consistent only" in err
    record = json.loads(out)
    assert (record["consistent"], "freeze" in record) == (False, False)
    assert reason in record["problem"]
    copied = content(machine.folder / "copy/root.qcow2")
    assert copied == (machine.folder / "root").read_bytes()


def test_no_agent_at_all(machine: Machine) -> None:
    machine.peer.deaf = True
    options = ("--timeout", "1", "--disk", "root")
    status, _, err = machine.snapshot(*options)
    assert status == 4
    assert "did not respond" in err
    machine.assert_clean()
    assert machine.snapshot(*options, "--crash-consistent")[0] == 0


def test_filesystems_that_are_not_frozen(machine: Machine) -> None:
    machine.peer.handlers["guest-get-fsinfo"] = lambda _: [
        *map(mounted, "ab"),
        mounted("efi", "vfat"),
        mounted("snap", "squashfs"),
    ]
    status, _, err = machine.snapshot("--disk", "root")
    assert status == 1
    assert "/a, /b, /efi: the agent froze only 2 of these 3, and cannot tell which" in err
    machine.assert_clean()
    assert machine.snapshot("--disk", "root", "--unfrozen", "/efi")[0] == 0


def test_a_frozen_filesystem_does_not_count_for_another(machine: Machine) -> None:
    """/b need not be frozen but is, and /efi has to be but is not: two are frozen, as before."""
    machine.peer.handlers["guest-get-fsinfo"] = lambda _: [
        *map(mounted, "ab"),
        mounted("efi", "vfat"),
    ]
    status, _, err = machine.snapshot("--disk", "root", "--unfrozen", "/b")
    assert status == 1
    assert "/a, /b, /efi: the agent froze only 2 of these 3, and cannot tell which" in err
    machine.assert_clean()
    accepted = ("--unfrozen", "/b", "--unfrozen", "/efi")
    assert machine.snapshot("--disk", "root", *accepted)[0] == 0


def test_an_agent_that_does_not_list_filesystems(machine: Machine) -> None:
    refusal = RuntimeError("CommandNotFound", "Command guest-get-fsinfo has been disabled")
    machine.peer.handlers["guest-get-fsinfo"] = lambda _: refusal
    status, _, err = machine.snapshot("--disk", "root")
    assert (status, "cannot tell whether all filesystems are frozen" in err) == (1, True), err
    machine.assert_clean()
    status, out, _ = machine.snapshot("--disk", "root", "--crash-consistent", json=True)
    assert (status, json.loads(out)["consistent"]) == (0, False)


def after_the_freeze(machine: Machine, new: str) -> Any:
    """What is mounted: after the freeze a filesystem more."""
    return [*map(mounted, "ab" + new * ("guest-fsfreeze-freeze" in machine.commands()))]


def test_a_filesystem_that_is_mounted_meanwhile(machine: Machine) -> None:
    """After the list of those to freeze: what is written to it is in the copy or not."""
    machine.peer.handlers["guest-get-fsinfo"] = lambda _: [
        *after_the_freeze(machine, "c"),
        mounted("snap", "squashfs"),
    ]
    status, _, err = machine.snapshot("--disk", "root")
    assert (status, "mounted while the guest was being frozen: /c" in err) == (1, True), err
    machine.assert_clean()
    machine.peer.requests.clear()
    assert machine.snapshot("--disk", "root", "--unfrozen", "/c")[0] == 0


def test_an_external_snapshot_is_recorded_with_its_freeze(machine: Machine) -> None:
    """Also if it is not consistent: the guest writes to its files, so they stay."""
    machine.peer.handlers["guest-get-fsinfo"] = lambda _: after_the_freeze(machine, "c")
    status, _, err = machine.snapshot("--disk", "root", "--external")
    assert (status, "while the guest was being frozen: /c; but the guest writes" in err) == (
        1,
        True,
    )
    record = json.loads((machine.folder / "copy/snapshot.json").read_text())
    assert (record["consistent"], record["freeze"]["frozen"]) == (False, 2)


def test_a_list_that_takes_its_time_after_the_thaw(machine: Machine) -> None:
    """The copy is a good one, and the guest was not frozen meanwhile."""

    def slow_after_the_thaw(_arguments: dict[str, Any]) -> Any:
        time.sleep(1.5 * ("guest-fsfreeze-thaw" in machine.commands()))
        return [*map(mounted, "ab")]

    machine.peer.handlers["guest-get-fsinfo"] = slow_after_the_thaw
    status, out, err = machine.snapshot("--disk", "root", "--timeout", "1", json=True)
    assert (status, err) == (0, "")
    assert json.loads(out)["freeze"]["seconds"] < 1.5


def test_an_agent_that_no_longer_lists_filesystems(machine: Machine) -> None:
    """Nobody knows whether one was mounted meanwhile."""

    def fails_after_the_freeze(_arguments: dict[str, Any]) -> Any:
        if "guest-fsfreeze-freeze" in machine.commands():
            return RuntimeError("GenericError", "cannot open /proc/self/mountinfo")
        return [*map(mounted, "ab")]

    machine.peer.handlers["guest-get-fsinfo"] = fails_after_the_freeze
    status, _, err = machine.snapshot("--disk", "root")
    reason = "cannot tell what was mounted while the guest was being frozen: cannot open /proc"
    assert (status, reason in err) == (1, True), err
    machine.assert_clean()
    machine.peer.requests.clear()
    status, out, _ = machine.snapshot("--disk", "root", "--crash-consistent", json=True)
    record = json.loads(out)
    assert (status, record["consistent"], record["freeze"]["frozen"]) == (0, False, 2)
    assert reason in record["problem"]


def test_the_monitor_of_another_machine(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """web would be frozen, and the disks of another machine copied."""
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    other = Machine(tmp_path / "other", Filesystems(), machine.peer)
    try:
        words = ["snapshot", str(machine.folder / "copy"), "--qmp", str(other.socket)]
        address = f"unix:{machine.folder}/agent"
        status, _, err = run_qgactl("--timeout", "1", *words, "--crash-consistent", address=address)
    finally:
        other.end()
    assert (status, f"this is the QMP socket of web (process {other.qemu.pid})" in err) == (3, True)
    machine.assert_clean()


def test_a_monitor_as_qemu_takes_it(machine: Machine) -> None:
    words = ["snapshot", str(machine.folder / "copy"), "--disk", "root"]
    status, _, err = run_qgactl(
        *words, "--qmp", f"unix:{machine.socket}", address=machine.peer.address
    )
    assert (status, err) == (0, "")


def test_no_monitor_of_libvirt(machine: Machine) -> None:
    """libvirt has it open; whichever is given belongs to another machine."""
    words = ["snapshot", str(machine.folder / "copy"), "--qmp", str(machine.socket)]
    status, _, err = run_qgactl(*words, "--crash-consistent", address="libvirt:web")
    assert (status, "leave out --qmp" in err) == (1, True), err


def test_filesystems_that_our_agent_has_left_out(machine: Machine) -> None:
    left_out = {"mountpoint": "/efi", "type": "vfat", "reason": "cannot be frozen"}
    machine.peer.handlers["qga-get-freeze"] = lambda _: {
        "status": "frozen",
        "seconds": 0.5,
        "filesystems": [{"mountpoint": "/", "type": "ext4"}],
        "left-out": [left_out],
        "hooks": ["/etc/hook"],
    }

    def freeze_slowly(arguments: dict[str, Any]) -> Any:
        time.sleep(0.6)
        return machine.guest.freeze(arguments)

    machine.peer.handlers["guest-fsfreeze-freeze"] = freeze_slowly
    status, _, err = machine.snapshot("--disk", "root")
    assert (status, "not frozen: /efi (vfat): cannot be frozen" in err) == (1, True)
    machine.assert_clean()
    status, out, _ = machine.snapshot("--disk", "root", "--unfrozen", "/efi", json=True)
    record = json.loads(out)
    assert (status, record["consistent"]) == (0, True)
    assert record["freeze"]["left-out"] == [left_out]
    assert record["freeze"]["hooks"] == ["/etc/hook"]
    assert record["freeze"]["seconds"] >= 0.5


def test_a_freeze_that_did_not_last(machine: Machine) -> None:
    machine.guest.thaws = [0]
    status, _, err = machine.snapshot("--disk", "root")
    assert status == 1
    assert "the freeze did not last: 2 of 2 filesystems had been thawed already" in err
    machine.guest.frozen = 0
    machine.assert_clean()


def test_a_directory_that_is_there(machine: Machine) -> None:
    copy = machine.folder / "copy"
    copy.mkdir()
    (copy / "precious").touch()
    status, _, err = machine.snapshot("--disk", "root")
    assert status == 1
    assert err.endswith(f": a new directory is required, and this one exists: {copy}\n")
    assert os.listdir(copy) == ["precious"]
    assert "guest-fsfreeze-freeze" not in machine.commands()


def test_a_disk_that_is_not_there(machine: Machine) -> None:
    status, _, err = machine.snapshot("--disk", "vda")
    assert status == 1
    assert "the machine has no disk 'vda'; it has root, " in err
    status, _, err = machine.snapshot("--disk", "fixed")
    assert (status, err.endswith("disk fixed: it is read-only\n")) == (1, True)
    machine.assert_clean()


def in_little_space(machine: Machine, *words: str) -> subprocess.CompletedProcess[str]:
    """A directory of one MiB, which only this qgactl sees."""
    place = machine.folder / "place"
    place.mkdir(exist_ok=True)
    script = 'mount -t tmpfs -o size=1M none "$0" && exec "$@"'
    argv = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(place)]
    argv += [*QGACTL, "snapshot", str(place / "copy"), "--qmp", str(machine.socket), *words]
    return subprocess.run(
        argv,
        env=environment(machine.peer.address),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_no_space(machine: Machine) -> None:
    """Known before; and only noticed by QEMU."""
    done = in_little_space(machine, "--disk", "root")
    assert done.returncode == 1
    assert "not enough space: the disks may need 8388608 bytes" in done.stderr
    assert "guest-fsfreeze-freeze" not in machine.commands()
    done = in_little_space(machine, "--disk", "slow", "--format", "raw")
    assert done.returncode == 1
    assert "QEMU failed to copy: No space left on device" in done.stderr
    machine.assert_clean()


def test_a_monitor_that_is_in_use(machine: Machine) -> None:
    with Qmp(str(machine.socket), PATIENCE):
        status, _, err = machine.snapshot("--disk", "root", "--timeout", "1")
    assert status == 3
    assert "it serves one QMP client at a time, is another one connected?" in err
    machine.assert_clean()


def test_a_monitor_that_is_found(machine: Machine) -> None:
    """By the agent's socket, on which nobody answers here."""
    words = ["snapshot", f"{machine.folder}/copy", "--disk", "root", "--crash-consistent"]
    status, out, err = run_qgactl("--timeout", "1", *words, address=f"unix:{machine.folder}/agent")
    assert (status, "copied 1 disk" in out) == (0, True), err
    assert content(machine.folder / "copy/root.qcow2") == (machine.folder / "root").read_bytes()


def test_a_monitor_in_whose_place_another_process_listens(machine: Machine) -> None:
    """It gets no request, and no descriptor of a file."""
    machine.socket.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(machine.socket))
        other.listen()
        words = ["snapshot", f"{machine.folder}/copy", "--crash-consistent"]
        status, _, err = run_qgactl(*words, address=f"unix:{machine.folder}/agent")
        with other.accept()[0] as connection:
            assert connection.recv(1) == b""
    expected = f"process {os.getpid()} listens there, not web (process {machine.qemu.pid})"
    assert (status, expected in err) == (3, True), err
    assert not (machine.folder / "copy").exists()


def test_no_monitor(machine: Machine) -> None:
    words = ["snapshot", str(machine.folder / "copy")]
    status, _, err = run_qgactl(*words, address=machine.peer.address)
    assert (status, "QMP socket was not found" in err) == (1, True)
    status, _, err = run_qgactl(
        *words, "--qmp", str(machine.folder / "none"), address=machine.peer.address
    )
    assert (status, "No such file or directory" in err) == (3, True)
    machine.assert_clean()


WHEN_CONCLUDED = """
import os, resource
from qga.client.snapshots.qemu import Copy
honest = Copy._jobs
def jobs(copy):
    found = honest(copy)
    if found and all("-job-" in job.id and job.status == "concluded" for job in found):
        {action}
    return found
Copy._jobs = jobs
from qga.ctl.main import main
main()
"""


def when_concluded(machine: Machine, action: str) -> tuple[int, str, str]:
    """The tables of a qcow2 file are in QEMU's memory then: without them, the copy is empty."""
    argv = [QGACTL[0], "-c", WHEN_CONCLUDED.format(action=action)]
    done = subprocess.run(
        [*argv, *machine.options("--disk", "root")],
        env=environment(machine.peer.address),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_qemu_that_ends_as_soon_as_the_job_has(machine: Machine) -> None:
    status, out, err = when_concluded(machine, f"os.kill({machine.qemu.pid}, 9)")
    assert (status, out) == (3, "")
    assert "QEMU closed the QMP connection" in err
    assert not (machine.folder / "copy").exists()


def test_a_qemu_that_cannot_write_the_tables(machine: Machine) -> None:
    limit = f"resource.prlimit({machine.qemu.pid}, resource.RLIMIT_FSIZE, (4096, -1))"
    status, out, err = when_concluded(machine, limit)
    assert (status, out) == (1, "")
    assert "QEMU failed to write" in err
    assert "File too large" in err
    machine.assert_clean()


def test_a_user_who_leaves_an_external_snapshot_is_told_of_the_files(machine: Machine) -> None:
    """Without them, the guest would lose its disk."""
    times = iter((0.0, 1.0))

    def filesystems(_: dict[str, Any]) -> list[dict[str, Any]]:
        if pause := next(times):
            process.send_signal(signal.SIGINT)
            time.sleep(pause)
        return [mounted("a"), mounted("b")]

    machine.peer.handlers["guest-get-fsinfo"] = filesystems
    process = start_external(machine)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert err == (
        f"qgactl: interrupted; but the guest may write to the new files in {machine.folder}/copy\n"
    )
    assert (machine.folder / "copy/root.qcow2").exists()
    assert machine.guest.frozen == 0


def start_external(machine: Machine) -> subprocess.Popen[str]:
    argv = [*QGACTL, *machine.options("--external", "--disk", "root")]
    env = environment(machine.peer.address)
    return subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True)


def test_a_user_who_leaves_is_told_of_them_also_if_the_guest_cannot_be_thawed(
    machine: Machine,
) -> None:
    def filesystems(_: dict[str, Any]) -> list[dict[str, Any]]:
        if "guest-fsfreeze-thaw" in machine.commands():
            machine.guest.thaws = [RuntimeError("GenericError", "no")] * 99
            process.send_signal(signal.SIGINT)
            time.sleep(1.0)
        return [mounted("a"), mounted("b")]

    machine.peer.handlers["guest-get-fsinfo"] = filesystems
    process = start_external(machine)
    _, err = process.communicate(timeout=PATIENCE)
    named, failed = err.splitlines()
    assert named.endswith(f"the guest may write to the new files in {machine.folder}/copy")
    assert "guest-fsfreeze-thaw" in failed
    assert process.returncode == 1


def test_a_user_who_leaves_is_not_told_of_a_directory_that_was_there(machine: Machine) -> None:
    (machine.folder / "copy").mkdir()
    machine.socket.unlink()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(machine.socket))
        silent.listen()
        process = start_external(machine)
        with silent.accept()[0]:
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (130, "")


def test_an_external_snapshot_whose_record_cannot_be_written_names_the_files(
    machine: Machine,
) -> None:
    def thaw(arguments: dict[str, Any]) -> Any:
        (machine.folder / "copy/.snapshot.json").touch()  # another user's: it cannot be created
        return machine.guest.thaw(arguments)

    machine.peer.handlers["guest-fsfreeze-thaw"] = thaw
    status, _, err = machine.snapshot("--external", "--disk", "root")
    place = machine.folder / "copy"
    reason = f"cannot write {place}/snapshot.json: File exists"
    assert (status, f"{reason}; but the guest writes to the new files in {place}" in err) == (
        1,
        True,
    ), err
    assert (place / "root.qcow2").exists()


def test_an_external_snapshot_whose_guest_stays_frozen_names_the_files(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freeze, "RETRIES_END", 0.1)
    machine.guest.thaws = [RuntimeError("GenericError", "no")] * 99
    place, socket = str(machine.folder / "copy"), str(machine.socket)
    with GuestAgent(machine.peer.address) as agent, pytest.raises(ThawFailed) as failure:
        agent.snapshot(place, external=True, disks=["root"], qmp=socket)
    assert failure.value.reason.endswith(f"no; but the guest writes to the new files in {place}")
