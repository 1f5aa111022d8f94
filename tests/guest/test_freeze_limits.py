"""Time limits of a freeze, and mount points excluded from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from . import service
from .agent_socket import AgentSocket
from .freezing import PLACES, can_write, frozen_places, thawed_after
from .vm import Guest

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("disks")]

FOLDER = "/run/limits"
HOOK = f"{FOLDER}/hook"
NOTED, LOG = f"{FOLDER}/noted", f"{FOLDER}/log"
SECONDS = 10
LONG = 600
TWO = ["/mnt/part", "/mnt/volume"]


@contextmanager
def agent_with(guest: Guest, limit: int) -> Iterator[tuple[AgentSocket, str]]:
    """An agent that thaws by itself after some seconds, with the name of its unit."""
    guest.write_file(HOOK, f"#!/bin/sh\necho $1 >>{NOTED}\n", mode="755")
    guest.write_file(
        f"{FOLDER}/qemu-ga.conf",
        f"[general]\nfsfreeze-hook={HOOK}\nfreeze-timeout={limit}\nlogfile={LOG}\n"
        "fsfreeze-exclude=/mnt/us*, /srv/*\n",
    )
    options = ["-c", f"{FOLDER}/qemu-ga.conf"]
    with service.by_hand(guest, *options) as unit, guest.connect() as agent:
        yield agent, unit


@pytest.fixture
def agent(guest: Guest) -> Iterator[AgentSocket]:
    guest.run(["rm", "-f", NOTED, LOG])
    with service.stopped(guest), agent_with(guest, SECONDS) as (agent, _), thawed_after(agent):
        yield agent


@pytest.fixture
def patient(guest: Guest) -> Iterator[AgentSocket]:
    with service.stopped(guest), agent_with(guest, LONG) as (agent, _), thawed_after(agent):
        yield agent


def wait_until_thawed(agent: AgentSocket) -> None:
    service.wait_for(
        lambda: agent.execute("guest-fsfreeze-status") == "thawed", "the agent to thaw by itself"
    )


def uptime(guest: Guest) -> float:
    return float(guest.run(["cat", "/proc/uptime"]).stdout.split()[0])


def test_what_nobody_thaws_thaws_by_itself(guest: Guest, agent: AgentSocket) -> None:
    assert agent.execute("guest-fsfreeze-freeze-list", mountpoints=TWO) == 2
    assert frozen_places(guest) == set(TWO)
    wait_until_thawed(agent)
    assert frozen_places(guest) == set()
    assert can_write(guest, "/mnt/part/written")
    assert agent.execute("guest-fsfreeze-thaw") == 0
    told = "the filesystems were not thawed in time (freeze-timeout): thawed 2 filesystems"
    service.wait_for(lambda: told in guest.run(["cat", LOG]).stdout, "the line in the log")
    assert guest.run(["head", "-n", "2", NOTED]).stdout.split() == ["freeze", "thaw"]


def test_each_freeze_has_its_whole_time(guest: Guest, agent: AgentSocket) -> None:
    agent.execute("guest-fsfreeze-freeze-list", mountpoints=TWO)
    guest.run(["sleep", str(SECONDS / 2)])
    agent.execute("guest-fsfreeze-thaw")
    start = uptime(guest)
    agent.execute("guest-fsfreeze-freeze-list", mountpoints=TWO)
    wait_until_thawed(agent)
    assert uptime(guest) - start > SECONDS - 1


def test_the_time_outlives_the_agent(guest: Guest) -> None:
    """A second agent with a timeout of an hour keeps the timeout of the first."""
    with service.stopped(guest):
        with agent_with(guest, SECONDS) as (agent, unit):
            agent.execute("guest-fsfreeze-freeze-list", mountpoints=TWO)
            guest.run(["systemctl", "kill", "--signal=KILL", unit])
        with agent_with(guest, 3600) as (agent, _), thawed_after(agent):
            wait_until_thawed(agent)
            assert frozen_places(guest) == set()


def test_what_is_excluded_is_left_alone(guest: Guest, patient: AgentSocket) -> None:
    patient.execute("guest-fsfreeze-freeze")
    assert frozen_places(guest) == set(PLACES) - {"/mnt/usb"}
    patient.execute("guest-fsfreeze-thaw")
    places = ["/mnt/usb", "/mnt/part"]
    assert patient.execute("guest-fsfreeze-freeze-list", mountpoints=places) == 1
    patient.execute("guest-fsfreeze-thaw")


def test_what_is_mounted_elsewhere_too_is_not_excluded(guest: Guest, patient: AgentSocket) -> None:
    """For example a container's mounts, which show a directory of the root filesystem."""
    guest.run(["/bin/sh", "-ec", "mkdir -p /srv/root; mount --bind /etc /srv/root"])
    try:
        patient.execute("guest-fsfreeze-freeze")
        assert "/" in frozen_places(guest)
        patient.execute("guest-fsfreeze-thaw")
    finally:
        guest.run(["umount", "/srv/root"])
