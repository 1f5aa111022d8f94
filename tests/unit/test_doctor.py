"""Parts of --doctor that want what this machine does not have."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from qga import doctor
from qga.doctor import Report, processes
from qga.doctor import unit as doctor_unit
from qga.doctor.processes import Process
from qga.doctor.unit import Unit, diagnose_unit, line_with, unit_of
from qga.findings import failed, ok, warning
from qga.settings import options

AGENT = Process(7, ["/usr/bin/python3", "-IS", "/usr/sbin/qemu-ga", "-v"], "/usr/bin/python3.11")


@pytest.mark.parametrize(
    ("process", "expected"),
    [
        (AGENT, ["-v"]),
        (Process(1, ["python", "-m", "qga", "-b", "x"], "/usr/bin/python3"), ["-b", "x"]),
        (Process(1, ["qemu-ga", "-m", "isa-serial"], "/usr/sbin/qemu-ga"), None),
        (Process(1, ["vi", "/usr/sbin/qemu-ga"], "/usr/bin/vi"), None),
        (Process(1, ["python3", "-c", "qga"], "/usr/bin/python3"), None),
        (Process(2, [], ""), None),
        (Process(1, ["python3"], "/usr/bin/python3"), None),
        (Process(1, ["python3", "-"], "/usr/bin/python3"), None),
        (Process(1, ["python3", "-m"], "/usr/bin/python3"), None),
        (Process(1, ["python3", "-Im", "qga", "-v"], "/usr/bin/python3"), ["-v"]),
        (Process(1, ["python3", "-mqga", "-v"], "/usr/bin/python3"), ["-v"]),
        (Process(1, ["python3", "-W", "error", "-Xdev", "-m", "qga"], "/usr/bin/python3"), []),
        (Process(1, ["python3", "-X", "dev", "/x/qemu-ga", "-v"], "/usr/bin/python3"), ["-v"]),
        (Process(1, ["python3", "backup.py", "/usr/sbin/qemu-ga"], "/usr/bin/python3"), None),
        (Process(1, ["python3", "backup.py", "-m", "qga"], "/usr/bin/python3"), None),
        (Process(1, ["python3", "-c", "pass", "qemu-ga"], "/usr/bin/python3"), None),
        (Process(1, ["python3", "-Ic", "pass", "-m", "qga"], "/usr/bin/python3"), None),
        (Process(1, ["python3", "-m", "backup", "qemu-ga"], "/usr/bin/python3"), None),
        (Process(1, ["python3", "-W", "qemu-ga", "x.py"], "/usr/bin/python3"), None),
        (AGENT._replace(trusted=False), None),
    ],
)
def test_which_processes_are_agents(process: Process, expected: list[str] | None) -> None:
    assert process.options == expected


@contextmanager
def running(*before: str, options: str = "-v") -> Iterator[int]:
    """What looks like an agent, and is none; its process id."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # where everybody may come
    folder.chmod(0o755)
    script = folder / "qemu-ga"
    script.write_text("import time\nprint(flush=True)\ntime.sleep(1000)\n")
    argv = [*before, "/usr/bin/python3", "-IS", str(script), *options.split()]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            started = [each for each in (child.pid, *children(child.pid)) if runs(each, script)]
            assert started, f"{argv} did not start; in a chroot there are no user namespaces"
            yield started[0]
        finally:
            child.kill()
            shutil.rmtree(folder)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def runs(pid: int, script: Path) -> bool:
    found = processes.process(pid)
    return found is not None and str(script) in found.argv[:3]


def is_agent(pid: int) -> bool:
    return pid in [agent.pid for agent in processes.agents()]


def test_an_agent_of_ours_counts() -> None:
    with running() as pid:
        assert is_agent(pid)


@pytest.mark.parametrize(
    "options", ["--dump-conf", "--doctor", "--explain-policy=guest-ping", "-Z"]
)
def test_a_process_that_does_not_serve_is_not_an_agent(options: str) -> None:
    with running(options=options) as pid:
        assert not is_agent(pid)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize(
    "before",
    [
        "setpriv --reuid=65534 --regid=65534 --clear-groups",
        "setpriv --ruid=65534",
        "unshare --pid --fork --kill-child",
        "setpriv --reuid=65534 --regid=65534 --clear-groups "
        "unshare --user --map-root-user --pid --fork --kill-child",
    ],
)
def test_nobody_passes_for_an_agent_by_a_command_line(before: str) -> None:
    with running(*before.split()) as pid:
        assert not is_agent(pid)


SHOWN = """\
LoadState=loaded
ActiveState=active
Result=success
MainPID=7
StatusText=Serving /dev/virtio-ports/org.qemu.guest_agent.0
FragmentPath=/lib/systemd/system/qemu-guest-agent.service
DropInPaths=/etc/a.conf /etc/b.conf
EnvironmentFiles=/etc/default/qemu-guest-agent (ignore_errors=yes)
"""


@pytest.fixture
def unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Unit:
    monkeypatch.setattr(doctor_unit, "_BOOTED", str(tmp_path))
    monkeypatch.setattr(doctor_unit, "run", lambda *_: SimpleNamespace(output=SHOWN))
    found = unit_of(options.parse([]))
    assert found is not None
    return found


def test_the_unit_and_the_files_that_make_it(unit: Unit) -> None:
    assert (unit.name, unit.main_pid) == ("qemu-guest-agent.service", 7)
    assert unit.files == [
        "/etc/default/qemu-guest-agent",
        "/etc/b.conf",
        "/etc/a.conf",
        "/lib/systemd/system/qemu-guest-agent.service",
    ]
    told = "qemu-guest-agent.service is active: Serving /dev/virtio-ports/org.qemu.guest_agent.0"
    assert list(diagnose_unit(unit, AGENT)) == [ok("unit", told)]


def test_a_unit_with_a_socket_needs_no_path(
    unit: Unit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "qemu-ga.conf"
    config.write_text("[general]\nmethod=vsock-listen\n")
    config.chmod(0o644)
    arguments = options.parse(["-c", str(config)])
    monkeypatch.setattr(processes, "agents", list)
    faults = []
    for trigger in ("", "qemu-guest-agent-vsock.socket"):
        found = unit._replace(properties={**unit.properties, "TriggeredBy": trigger})
        monkeypatch.setattr(doctor, "unit_of", lambda _, found=found: found)
        findings = doctor.examine(arguments).findings
        faults.append([each.text for each in findings if "must specify a path" in each.text])
    assert [len(each) for each in faults] == [1, 0]


@pytest.mark.parametrize(
    ("changes", "agent", "status", "text"),
    [
        ({"ActiveState": "failed", "Result": "exit-code"}, None, "failed", "failed (exit-code)"),
        ({"ActiveState": "inactive"}, None, "failed", "is inactive"),
        ({"ActiveState": "inactive", "LoadState": "masked"}, None, "failed", "is masked"),
        ({"ActiveState": "inactive", "LoadState": "not-found"}, AGENT, "warning", "pid 7 was"),
    ],
)
def test_units_that_do_not_run(
    unit: Unit, changes: dict[str, str], agent: Process | None, status: str, text: str
) -> None:
    [found] = diagnose_unit(unit._replace(properties={**unit.properties, **changes}), agent)
    assert found.status == status
    assert text in found.text


def test_the_line_of_a_file_that_an_option_is_from(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("# guest-exec\nA=b\n")
    second.write_text("A=\nDAEMON_ARGS=--block-rpcs=guest-exec\n")
    paths = [str(tmp_path / "missing"), str(first), str(second)]
    assert line_with(paths, "guest-exec") == f"{second}, line 2"
    assert line_with(paths, "guest-ping") is None
    unit = Unit("u", {}, paths)
    rule = "the command line: block-rpcs=guest-exec"
    assert doctor._place(rule, unit) == f"{second}, line 2: block-rpcs=guest-exec"
    assert doctor._place(rule, None) == rule


@pytest.mark.parametrize(
    ("enforcing", "context", "status"),
    [
        ("1", "system_u:system_r:virt_qemu_ga_t:s0", "warning"),
        ("0", "system_u:system_r:virt_qemu_ga_t:s0", "ok"),
        ("1", "system_u:system_r:unconfined_service_t:s0", "ok"),
    ],
)
def test_selinux(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enforcing: str, context: str, status: str
) -> None:
    (tmp_path / "enforce").write_text(enforcing)
    (tmp_path / "context").write_text(f"{context}\0")
    monkeypatch.setattr(doctor, "_SELINUX", str(tmp_path / "enforce"))
    monkeypatch.setattr(doctor, "_CONTEXT", str(tmp_path / "context"))
    [found] = doctor._diagnose_selinux(AGENT)
    assert found.status == status
    assert context in found.text


def test_a_report() -> None:
    well = Report([ok("a", "fine")])
    assert well.well
    assert well.text() == "ok       a: fine\nAll is well.\n"
    amiss = Report([*well.findings, warning("b", "odd\n", "look"), failed("c", "gone", "find")])
    assert not amiss.well
    assert amiss.text() == (
        "ok       a: fine\n"
        "warning  b: odd\\n\n"
        "         try: look\n"
        "failed   c: gone\n"
        "         try: find\n"
        "1 failed, 1 warning.\n"
    )
    assert amiss.json().startswith(
        '{"well": false, "findings": [{"check": "a", "status": "ok", "text": "fine"}, '
        '{"check": "b", "status": "warning", "text": "odd\\n", "advice": "look"}'
    )


def test_when_a_process_was_started() -> None:
    before = time.time()
    with subprocess.Popen(["sleep", "100"]) as child:
        after = time.time()
        found = processes.started(child.pid)
        child.kill()
    assert before - 0.02 <= found <= after + 0.02
