"""Programs that exceed limits, run as nobody: they end in time and leave no process behind."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from .agent_socket import AgentError, AgentSocket
from .service import PROGRAM, UNIT, by_hand, stopped, wait_for
from .vm import AGENT_PORT, Guest

# The first test may have to build the image; the guest is emulated, and may share its processor.
pytestmark = pytest.mark.timeout(900)

GROUPS = "/sys/fs/cgroup/system.slice/qga-programs.service"
SECONDS = 4
"""A timeout that is long enough for an emulated guest."""

GO = "/run/go"
"""A FIFO: a reader waits until somebody writes to it."""


class Nasty(NamedTuple):
    """A shell script, its limits, and the limit that ends it."""

    script: str
    limits: dict[str, float]
    ended_by: str | None


NASTY = {
    "fork bomb": Nasty(
        "b() { b & b & }; b & exec sleep 1000", {"processes": 4, "cpu": 0.02}, "timeout"
    ),
    "memory hog": Nasty("exec tail /dev/zero", {"memory": 4 << 20}, "memory"),
    "ignores TERM": Nasty("trap '' TERM; while :; do sleep 1000; done", {}, "timeout"),
    "daemon": Nasty(
        "(setsid sh -c \"trap '' TERM HUP; sleep 1000; sleep 1000\" <&- >&- 2>&- &)", {}, None
    ),
    "endless output": Nasty("exec yes", {"output": 100_000}, "output"),
}


@pytest.fixture(autouse=True)
def without_leftovers(guest: Guest) -> Iterator[None]:
    """Remove what a failed test has left behind."""
    yield
    guest.run(["rm", "-f", GO])
    guest.run(["systemctl", "stop", "qga-programs.service"], check=False)


def start(agent: AgentSocket, script: str, **how: Any) -> dict[str, Any]:
    started = agent.execute("qga-exec", path="/bin/sh", arg=["-c", script], **how)
    return dict(started)


def ended(agent: AgentSocket, pid: int) -> dict[str, Any]:
    """Read the output of a program until it exits, and return how it ended."""
    read = 0

    def look() -> dict[str, Any] | None:
        nonlocal read
        seen: dict[str, Any] = agent.execute("qga-exec-read", pid=pid, offset=read)
        read = seen["out-total"]
        return seen if seen["exited"] else None

    return wait_for(look, f"the end of process {pid}", timeout=120) or {}


def left(guest: Guest) -> list[str]:
    """Processes of nobody, and groups of programs."""
    script = f"find /proc -maxdepth 1 -name '[0-9]*' -user nobody; ls {GROUPS} | grep -- -; true"
    return guest.run(["/bin/sh", "-c", script]).stdout.splitlines()


def begin(agent: AgentSocket, name: str, timeout: float = SECONDS, before: str = "") -> int:
    script, limits, _ = NASTY[name]
    started = start(agent, before + script, user="nobody", timeout=timeout, limits=limits)
    assert started["confinement"] == "cgroup"
    return int(started["pid"])


def test_each_ends_in_time_and_leaves_nothing(guest: Guest, agent: AgentSocket) -> None:
    pids = {name: begin(agent, name) for name in NASTY}
    ends = {name: ended(agent, pid) for name, pid in pids.items()}
    for name, over in ends.items():
        assert over.get("ended-by") == NASTY[name].ended_by, (name, over)
    assert ends["ignores TERM"]["signal"] == 9
    assert ends["daemon"]["exitcode"] == 0
    assert ends["endless output"]["out-total"] == 100_000
    assert ends["endless output"]["out-truncated"]
    assert left(guest) == []


def test_two_hundred_at_once(guest: Guest, agent: AgentSocket) -> None:
    """Other clients are served meanwhile, and the agent uses no more memory afterwards."""
    guest.run(["mkfifo", "--mode=666", GO])
    ended(agent, begin(agent, "daemon"))  # which makes the unit
    since = time.monotonic()
    begin(agent, "daemon")
    until_all_are_started = 10 + 200 * (time.monotonic() - since)
    pids = []
    for name in [*NASTY] * 40:
        timeout = until_all_are_started if NASTY[name].ended_by == "timeout" else 900
        pids.append((name, begin(agent, name, timeout, f"read go <{GO}; ")))
    assert len(left(guest)) >= 2 * 120, "they wait, each in a group"
    # A line for each, however late it opens the FIFO. `yes` is killed when there is no reader.
    guest.run(["/bin/sh", "-c", f"(while [ -e {GO} ]; do yes; done >{GO} 2>&1) >/dev/null 2>&1 &"])
    for name, pid in pids:
        assert agent.execute("guest-ping") == {}
        assert ended(agent, pid).get("ended-by") == NASTY[name].ended_by, name
    guest.run(["rm", GO])
    assert left(guest) == []
    assert "Out of memory: " not in guest.run(["dmesg", "--kernel"]).stdout  # nor of a cgroup
    assert guest.run(["systemctl", "is-active", "qga-programs.service", UNIT]).status == 0


def test_they_outlive_the_agent_and_still_end_in_time(guest: Guest, agent: AgentSocket) -> None:
    start(agent, "trap '' TERM PIPE; while :; do sleep 1; done", user="nobody", timeout=20)
    guest.run(["systemctl", "restart", UNIT])
    assert len(left(guest)) >= 2
    wait_for(lambda: not left(guest), "the program's end")
    agent.sync()
    assert agent.execute("guest-ping") == {}


def test_without_cgroups_there_are_rlimits(guest: Guest) -> None:
    with (
        stopped(guest),
        by_hand(guest, limits=["ProtectControlGroups=yes", "KillMode=control-group"]),
        guest.connect(AGENT_PORT) as agent,
    ):
        limits = {"memory": 50 << 20, "processes": 20}
        script = NASTY["ignores TERM"].script
        started = start(agent, script, user="nobody", timeout=1, limits=limits)
        assert started["confinement"] == "rlimits"
        over = ended(agent, started["pid"])
        assert (over["signal"], over["ended-by"]) == (9, "timeout")
        started = start(agent, "tail /dev/zero", user="nobody", limits=limits)
        assert ended(agent, started["pid"])["exitcode"] == 1
        with pytest.raises(AgentError, match="cannot limit 'cpu'"):
            start(agent, "true", limits={"cpu": 0.5})
        assert left(guest) == []


def test_a_user_of_the_guest(guest: Guest, agent: AgentSocket) -> None:
    guest.run(["useradd", "--create-home", "--shell", "/bin/bash", "--groups", "games", "alice"])
    try:
        script = "id -un; id -Gn; echo $HOME $SHELL $USER $LOGNAME; pwd >where; cat where"
        pid = start(agent, script, user="alice", directory="/home/alice")["pid"]
        wait_for(lambda: agent.execute("qga-exec-read", pid=pid)["exited"], "its end")
        written = agent.execute("qga-exec-read", pid=pid, offset=0)["out-data"]
        assert base64.b64decode(written).decode().splitlines() == [
            "alice", "alice games", "/home/alice /bin/bash alice alice", "/home/alice",
        ]  # fmt: skip
        owner = guest.run(["stat", "-c", "%U:%G", "/home/alice/where"]).stdout
        assert owner == "alice:alice\n"
        with pytest.raises(AgentError, match="failed to enter the directory '/root'"):
            start(agent, "true", user="alice", directory="/root")
    finally:
        guest.run(["userdel", "--remove", "alice"], check=False)


def test_a_timeout_holds_while_the_guest_is_frozen(guest: Guest, agent: AgentSocket) -> None:
    """Nothing is started then; what runs is ended as ever."""
    ended(agent, begin(agent, "daemon"))  # which makes the unit
    pid = begin(agent, "ignores TERM")
    agent.execute("guest-fsfreeze-freeze")
    try:
        with pytest.raises(AgentError, match="Command qga-exec has been disabled"):
            start(agent, "true", user="nobody", timeout=1)
        time.sleep(SECONDS + 4)
    finally:
        agent.execute("guest-fsfreeze-thaw")
    over = agent.execute("qga-exec-read", pid=pid)
    assert (over["exited"], over["ended-by"], over["signal"]) == (True, "timeout", 9)
    assert left(guest) == []


VERSION_1 = """
mkdir -p /run/v1
mount -t cgroup -o none,name=qga cgroup /run/v1
"""


def test_cgroup_v1_is_none_of_ours(guest: Guest) -> None:
    """A hierarchy of version 1 where that of version 2 would be."""
    guest.run(["/bin/sh", "-ec", VERSION_1])
    try:
        with (
            stopped(guest),
            by_hand(guest, limits=["BindPaths=/run/v1:/sys/fs/cgroup"]),
            guest.connect(AGENT_PORT) as agent,
        ):
            script = NASTY["ignores TERM"].script
            started = start(agent, script, user="nobody", timeout=1, limits={"memory": 1 << 30})
            assert started["confinement"] == "rlimits"
            assert ended(agent, started["pid"])["ended-by"] == "timeout"
            with pytest.raises(AgentError, match="that needs cgroup v2 with its cpu controller"):
                start(agent, "true", limits={"cpu": 0.5})
            assert left(guest) == []
    finally:
        guest.run(["umount", "/run/v1"])


ENGINE = """
cd /sys/fs/cgroup/system.slice/qga-container.service
mkdir engine container
echo 0 >engine/cgroup.procs
echo +cpu +memory +pids >cgroup.subtree_control
exec unshare --pid --fork --mount --mount-proc /bin/sh -ec '
    echo 0 >container/cgroup.procs
    exec unshare --cgroup /bin/sh -e /run/container
'
"""
CONTAINER = f"""
umount -l /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs none /run/systemd
sleep 4712 &
exec {PROGRAM} --path=/dev/virtio-ports/{AGENT_PORT.name}
"""
IN_CONTAINER = "/sys/fs/cgroup/system.slice/qga-container.service/container"


def test_in_a_container_whose_cgroup_is_delegated(guest: Guest) -> None:
    """Its root holds processes, so it cannot limit other groups until they are elsewhere."""
    unit = ["systemd-run", "--unit=qga-container", "--property=Delegate=yes", "--collect"]
    guest.write_file("/run/engine", ENGINE)
    guest.write_file("/run/container", CONTAINER)
    with stopped(guest):
        guest.run([*unit, "/bin/sh", "-e", "/run/engine"])
        try:
            with guest.connect() as agent:
                pids = {name: begin(agent, name) for name in NASTY}
                for name, pid in pids.items():
                    assert ended(agent, pid).get("ended-by") == NASTY[name].ended_by, name
                half = start(agent, "read line", limits={"cpu": 0.5}, timeout=60)["pid"]
                limit = guest.run(
                    ["/bin/sh", "-c", f"cat {IN_CONTAINER}/qga-programs*/*-*/cpu.max"]
                )
                assert limit.stdout == "50000 100000\n"
                agent.execute("qga-exec-write", pid=half, eof=True)
                ended(agent, half)
            assert guest.run(["pgrep", "-c", "-f", "sleep 4712"]).stdout == "1\n"
            assert guest.run(["/bin/sh", "-c", f"cat {IN_CONTAINER}/cgroup.procs"]).stdout == ""
            groups = guest.run(["/bin/sh", "-c", f"ls -d {IN_CONTAINER}/qga-programs*/*-*; true"])
            assert groups.stdout == ""
        finally:
            guest.run(["systemctl", "stop", "qga-container"], check=False)
