"""What a guest says of its start, and hosts that wait for it, with our agent and with QEMU's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import pytest

from qga.client import DataPorts, GuestAgent, NeverReady, NotReady
from qga.client.watching import Events

from .agent_socket import AgentSocket
from .data_port import PORT
from .service import UNIT, by_hand, wait_for
from .vm import AGENT_PORT, ORIGINAL_PORT, Guest, Port

# The first test may have to build the image.
pytestmark = pytest.mark.timeout(900)

QGACTL = [sys.executable, "-c", "from qga.ctl.main import main; main()"]
LISTENER = "import socket, time\ns = socket.create_server(('127.0.0.1', 7117))\ntime.sleep(1000)\n"
STATES: dict[str, dict[str, Any]] = {
    "running": {"status.json": {"v1": {"stage": "modules-final"}}},
    "done": {"result.json": {"v1": {"datasource": "DataSourceNone", "errors": []}}},
    "error": {"result.json": {"v1": {"datasource": None, "errors": ["no such user: 'x'"]}}},
}


Run = Callable[[Sequence[str]], object]


@contextmanager
def cloud_init(run: Run, state: str) -> Iterator[None]:
    """The files that cloud-init has in that state; it is not installed in this guest."""
    script = 'mkdir -p /run/cloud-init; printf %s "$1" >"/run/cloud-init/$2"'
    for name, content in STATES[state].items():
        run(["/bin/sh", "-ec", script, "sh", json.dumps(content), name])
    try:
        yield
    finally:
        run(["rm", "-rf", "/run/cloud-init"])


@contextmanager
def unit(guest: Guest, name: str, *argv: str) -> Iterator[None]:
    guest.run(["systemd-run", f"--unit={name}", *argv])
    try:
        yield
    finally:
        guest.run(["systemctl", "stop", name], check=False)
        guest.run(["systemctl", "reset-failed", name], check=False)


def test_the_boot_is_as_systemd_has_it(guest: Guest, agent: AgentSocket) -> None:
    with unit(guest, "broken", "--service-type=oneshot", "--no-block", "false"):
        guest.run(["/bin/sh", "-c", "until systemctl is-failed broken; do sleep 0.1; done"])
        state = guest.run(["systemctl", "is-system-running"], check=False).stdout.strip()
        ready = agent.execute("qga-get-readiness")
    assert ready["boot"].items() >= {"manager": "systemd", "state": state, "finished": True}.items()
    assert ready["boot"]["jobs"] >= 0
    assert "broken.service" in ready["failed-units"]
    assert "cloud-init" not in ready
    assert not {"units", "listening"} & set(ready)


def test_addresses_are_those_that_others_can_reach(guest: Guest, agent: AgentSocket) -> None:
    guest.run(["ip", "address", "add", "169.254.7.7/16", "dev", "eth0"])
    try:
        found = agent.execute("qga-get-readiness")["addresses"]
    finally:
        guest.run(["ip", "address", "del", "169.254.7.7/16", "dev", "eth0"])
    shown = json.loads(guest.run(["ip", "-json", "-4", "address", "show", "eth0"]).stdout)
    [address] = [each["local"] for each in shown[0]["addr_info"] if each["local"][:3] != "169"]
    assert address in {each["address"] for each in found if each["interface"] == "eth0"}
    assert not [each for each in found if each["address"].startswith(("127.", "169.254.", "fe8"))]


def test_units_and_ports(guest: Guest, agent: AgentSocket) -> None:
    guest.write_file("/run/listener.py", LISTENER)
    asked = {"units": [UNIT, "nowhere.service", "-.mount"], "ports": [7117, 7118]}
    before = agent.execute("qga-get-readiness", **asked)
    assert before["units"] == [
        {"name": UNIT, "state": "active", "sub-state": "running", "load-state": "loaded"},
        {
            "name": "nowhere.service",
            "state": "inactive",
            "sub-state": "dead",
            "load-state": "not-found",
        },
        {"name": "-.mount", "state": "active", "sub-state": "mounted", "load-state": "loaded"},
    ]
    assert before["listening"] == []
    with unit(guest, "listener", "/usr/bin/python3", "/run/listener.py"):
        wait_for(
            lambda: agent.execute("qga-get-readiness", **asked)["listening"] == [7117], "a listener"
        )


@pytest.mark.parametrize("state", STATES)
def test_cloud_init(guest: Guest, agent: AgentSocket, state: str) -> None:
    with cloud_init(guest.run, state):
        found = agent.execute("qga-get-readiness")["cloud-init"]
    assert found["state"] == state
    assert found.get("stage") == ("modules-final" if state == "running" else None)
    assert found.get("errors") == (["no such user: 'x'"] if state == "error" else None)


def test_cloud_init_that_has_crashed(guest: Guest, agent: AgentSocket) -> None:
    """There is no result then, and never will be."""

    def with_failed_unit() -> Any:
        ready = agent.execute("qga-get-readiness")
        return "cloud-final.service" in ready.get("failed-units", ()) and ready

    with cloud_init(guest.run, "running"), unit(guest, "cloud-final.service", "/bin/false"):
        found = wait_for(with_failed_unit, "the failed unit")
    assert found["cloud-init"] == {"state": "error", "errors": ["cloud-final.service has failed"]}


@pytest.fixture(params=[AGENT_PORT, ORIGINAL_PORT], ids=["ours", "original"])
def waiting(request: Any, guest: Guest) -> Iterator[tuple[GuestAgent, Run]]:
    """One of the two agents for a host that waits; and what runs programs in the guest meanwhile,
    by the other, since a port takes one client."""
    port: Port = request.param
    address = f"unix:{guest.channel_path(port)}"
    agent = GuestAgent(address, 30)
    if port == AGENT_PORT:
        with closing(agent):
            yield agent, guest.run
        return
    assert guest.original
    guest.original.close()
    ours = GuestAgent(f"unix:{guest.channel_path()}", 30)
    try:
        with closing(agent), closing(ours):
            yield agent, lambda argv: ours.exec(argv, check=True)
    finally:
        guest.original = guest.connect(ORIGINAL_PORT)


START = {
    "file:/run/flag": ["touch", "/run/flag"],
    "unit:late.service": ["systemd-run", "--unit=late", "sleep", "1000"],
    "port:7117": ["systemd-run", "--unit=late", "python3", "-c", LISTENER],
}
END = "rm -f /run/flag; systemctl stop late 2>/dev/null; true"


@pytest.mark.parametrize("condition", ["file:/run/flag", "unit:late.service", "port:7117"])
def test_a_host_waits_until_it_is_so(waiting: tuple[GuestAgent, Run], condition: str) -> None:
    agent, run = waiting
    reports: list[str] = []

    def report(_condition: str, reason: str) -> None:
        if not reports:
            run(START[condition])
        reports.append(reason)

    try:
        [met] = agent.wait_for(condition, timeout=120, report=report)
    finally:
        run(["/bin/sh", "-c", END])
    assert met.condition == condition
    assert reports
    assert met.detail not in reports


def test_what_is_so_already(waiting: tuple[GuestAgent, Run]) -> None:
    agent, _ = waiting
    conditions = ("agent", "boot", "address", "file:/", "file:/etc/hostname")
    met = agent.wait_for(*conditions, timeout=60)
    assert [each.condition for each in met] == list(conditions)
    assert met[1].detail.startswith(("running", "degraded"))
    assert "on eth0" in met[2].detail


def test_a_host_that_waits_in_vain(waiting: tuple[GuestAgent, Run]) -> None:
    agent, _ = waiting
    with pytest.raises(NotReady) as caught:
        agent.wait_for("agent", "file:/nowhere", "port:7118", timeout=6)
    assert caught.value.missing == {
        "file:/nowhere": "it does not exist",
        "port:7118": "no program listens",
    }
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(NeverReady, match="cloud-init: it is not installed"):
        agent.wait_for("cloud-init", timeout=60)


@pytest.mark.parametrize("state", STATES)
def test_a_host_waits_for_cloud_init(waiting: tuple[GuestAgent, Run], state: str) -> None:
    agent, run = waiting
    with cloud_init(run, state):
        if state == "done":
            assert agent.wait_for("cloud-init", timeout=60)[0].detail == "done"
            return
        error, reason = (
            (NotReady, "running") if state == "running" else (NeverReady, "no such user")
        )
        with pytest.raises(error, match=reason):
            agent.wait_for("cloud-init", timeout=6)


def test_an_agent_that_may_not_tell(guest: Guest) -> None:
    guest.run(["systemctl", "stop", UNIT])
    try:
        with by_hand(guest, "--block-rpcs=qga-get-readiness,guest-exec,guest-file-open"):
            agent = GuestAgent(f"unix:{guest.channel_path()}", 30)
            with agent, pytest.raises(NeverReady, match="cannot tell: guest-exec"):
                agent.wait_for("address", "boot", timeout=60)
            with agent, pytest.raises(NeverReady, match="cannot tell: guest-file-open"):
                agent.wait_for("file:/etc/hostname", timeout=60)
    finally:
        guest.run(["systemctl", "start", UNIT])


def qgactl(guest: Guest, *words: str) -> subprocess.CompletedProcess[str]:
    command, *rest = words
    argv = [*QGACTL, command, f"unix:{guest.channel_path()}", *rest]
    port = f"--data-port={PORT.name}={guest.channel_path(PORT)}"
    return subprocess.run([*argv, port], capture_output=True, text=True, timeout=200, check=False)


def test_qgactl_waits(guest: Guest) -> None:
    done = qgactl(
        guest, "wait", "--for", "boot", "--for", "file:/nowhere", "--timeout", "6", "--json"
    )
    assert done.returncode == 4
    said = json.loads(done.stdout)
    assert said["ready"] is False
    assert [(each["condition"], each["met"]) for each in said["conditions"]] == [
        ("boot", True),
        ("file:/nowhere", False),
    ]
    assert "waiting for file:/nowhere: it does not exist" in done.stderr
    done = qgactl(guest, "wait", "--for", "boot")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r" is ready after \d+ s: boot: (running|degraded)", done.stdout)
    assert qgactl(guest, "wait", "--for", "cloud-init").returncode == 1


def test_qgactl_watches(guest: Guest) -> None:
    over = threading.Event()

    def change() -> None:
        while not over.wait(0.2):
            for word in ("add", "del"):
                guest.run(["ip", "address", word, "192.0.2.90/32", "dev", "lo"])

    changing = threading.Thread(target=change)
    changing.start()
    try:
        done = qgactl(guest, "watch", "--event", "address", "--count", "2", "--json")
    finally:
        over.set()
        changing.join()
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {each["event"] for each in found} == {"address-added", "address-removed"}
    assert all(each["address"] == "192.0.2.90" for each in found)


def wait_until_watched_again(events: Events, before: int) -> None:
    event = wait_for(lambda: events.next(1), "a new watch")
    assert event
    assert event.name == "agent-started"
    assert events.started.watch > before


def test_a_watch_continues_when_the_agent_restarts(guest: Guest) -> None:
    address = f"unix:{guest.channel_path()}"
    ports = DataPorts(address, {PORT.name: guest.channel_path(PORT)})
    with GuestAgent(address, 30).watch("address", ports=ports, check=5) as events:
        before = events.started.watch
        for signal, name in (("TERM", "agent-stopped"), ("KILL", "agent-lost")):
            guest.run(["systemctl", "kill", f"--signal={signal}", UNIT])
            guest.run(["systemctl", "reset-failed", UNIT], check=False)
            guest.run(["systemctl", "start", UNIT])
            assert next(iter(events)).name == name
            wait_until_watched_again(events, before)
            before = events.started.watch
            guest.run(["ip", "address", "add", "192.0.2.91/32", "dev", "lo"])
            added = events.next(60)
            guest.run(["ip", "address", "del", "192.0.2.91/32", "dev", "lo"])
            assert added
            assert added.details["address"] == "192.0.2.91"
            removed = events.next(60)
            assert removed
            assert removed.name == "address-removed"
