"""Freezing: which filesystems the kernel reports as frozen, and what happens to writers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.differences import differs

from . import service
from .agent_socket import AgentError, AgentSocket
from .freezing import (
    PLACES,
    Writer,
    can_write,
    failing_filesystem,
    frozen_places,
    mounted,
    thawed_after,
    unplugged_filesystem,
)
from .image import CHECKOUT
from .vm import AGENT_PORT, Guest

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("disks")]

COMMANDS = json.loads((CHECKOUT / "tests/interface.json").read_text())["commands"].keys()
ALLOWED = {
    "guest-fsfreeze-status",
    "guest-fsfreeze-thaw",
    "guest-info",
    "guest-ping",
    "guest-sync",
    "guest-sync-delimited",
    "qga-get-freeze",
    "qga-get-version",
}


@pytest.fixture
def agent(guest: Guest) -> Iterator[AgentSocket]:
    with guest.connect() as agent, thawed_after(agent):
        yield agent


def status(agent: AgentSocket) -> str:
    answer: str = agent.execute("guest-fsfreeze-status")
    return answer


def test_a_writer_blocks_while_frozen_and_continues_after_the_thaw(
    guest: Guest, agent: AgentSocket
) -> None:
    frozen = agent.execute("guest-fsfreeze-freeze")
    assert status(agent) == "frozen"
    assert frozen_places(guest) == set(PLACES)
    writers = [Writer(guest, f"{place}/written") for place in PLACES]
    for writer in writers:
        writer.wait_until_blocked()
    assert agent.execute("guest-fsfreeze-thaw") == frozen
    assert [writer.wait().status for writer in writers] == [0] * len(writers)
    assert status(agent) == "thawed"
    assert frozen_places(guest) == set()


def test_only_what_is_marked_is_carried_out_while_frozen(agent: AgentSocket) -> None:
    agent.execute("guest-fsfreeze-freeze")
    for command in sorted(COMMANDS - ALLOWED):
        with pytest.raises(AgentError) as caught:
            agent.execute(command)
        assert caught.value.error_class == "CommandNotFound"
        assert str(caught.value) == (
            f"Command {command} has been disabled: the command is not allowed"
        )
    assert enabled(agent) == ALLOWED
    assert agent.execute("guest-ping") == {}
    assert agent.execute("guest-sync", id=3) == 3
    agent.execute("guest-fsfreeze-thaw")
    assert enabled(agent) >= COMMANDS


def enabled(agent: AgentSocket) -> set[str]:
    commands = agent.execute("guest-info")["supported_commands"]
    return {command["name"] for command in commands if command["enabled"]}


@differs("slash-at-the-end")
def test_list_freezes_just_those(guest: Guest, agent: AgentSocket) -> None:
    places = ["/mnt/usb", "/mnt/volume/", "/mnt", "/mnt/nothing", ""]
    assert agent.execute("guest-fsfreeze-freeze-list", mountpoints=places) == 2
    assert frozen_places(guest) == {"/mnt/usb", "/mnt/volume"}
    assert can_write(guest, "/mnt/part/written")
    assert agent.execute("guest-fsfreeze-thaw") == 2
    assert frozen_places(guest) == set()


def test_nothing_to_freeze_is_not_frozen(agent: AgentSocket) -> None:
    assert agent.execute("guest-fsfreeze-freeze-list", mountpoints=["/mnt/nothing"]) == 0
    assert status(agent) == "thawed"
    assert agent.execute("guest-fsfreeze-thaw") == 0


def test_mounted_twice_is_frozen_once(guest: Guest, agent: AgentSocket) -> None:
    guest.run(["/bin/sh", "-ec", "mkdir -p /run/twice; mount --bind /mnt/usb /run/twice"])
    guest.run(["/bin/sh", "-ec", "touch /run/name; mount --bind /etc/hostname /run/name"])
    try:
        assert agent.execute("guest-fsfreeze-freeze-list", mountpoints=["/run/twice"]) == 1
        assert frozen_places(guest) == {"/mnt/usb"}
        assert agent.execute("guest-fsfreeze-thaw") == 1
        frozen = agent.execute("guest-fsfreeze-freeze")
        assert agent.execute("guest-fsfreeze-thaw") == frozen
    finally:
        guest.run(["umount", "/run/twice", "/run/name"])
    assert agent.execute("guest-fsfreeze-freeze") == frozen


def test_filesystem_in_a_file_of_another_is_frozen_first(guest: Guest, agent: AgentSocket) -> None:
    """Freezing it writes to the other one, which would wait for ever if that were frozen first."""
    with mounted(guest, "/mnt/usb/inner", "mkfs.ext4 -q -F"):
        guest.run(["/bin/sh", "-ec", "echo something >/mnt/inner/file"])
        places = ["/mnt/usb", "/mnt/inner"]
        assert agent.execute("guest-fsfreeze-freeze-list", mountpoints=places) == 2
        assert frozen_places(guest) == {"/mnt/usb"}
        writer = Writer(guest, "/mnt/inner/file")
        writer.wait_until_blocked()
        assert agent.execute("guest-fsfreeze-thaw") == 2
        assert writer.wait().status == 0


def test_what_cannot_be_frozen_is_passed_over(guest: Guest, agent: AgentSocket) -> None:
    with mounted(guest, "/run/inner", "mkfs.minix"):
        places = ["/mnt/usb", "/mnt/inner"]
        assert agent.execute("guest-fsfreeze-freeze-list", mountpoints=places) == 1
        assert frozen_places(guest) == {"/mnt/usb"}
        assert status(agent) == "frozen"


def test_what_others_have_frozen_is_thawed(guest: Guest, agent: AgentSocket) -> None:
    guest.run(["fsfreeze", "--freeze", "/mnt/usb"])
    assert status(agent) == "thawed"
    assert agent.execute("guest-fsfreeze-thaw") == 1
    assert frozen_places(guest) == set()


def test_what_was_frozen_is_thawed_though_it_is_unmounted(guest: Guest, agent: AgentSocket) -> None:
    device = guest.run(["findmnt", "--noheadings", "--output=SOURCE", "/mnt/usb"]).stdout.strip()
    assert agent.execute("guest-fsfreeze-freeze-list", mountpoints=["/mnt/usb"]) == 1
    guest.run(["umount", "--lazy", "/mnt/usb"])
    try:
        assert agent.execute("guest-fsfreeze-thaw") == 1
    finally:
        guest.run(["mount", device, "/mnt/usb"])
    assert frozen_places(guest) == set()
    assert can_write(guest, "/mnt/usb/written")


def test_what_others_have_frozen_is_passed_over(guest: Guest, agent: AgentSocket) -> None:
    guest.run(["fsfreeze", "--freeze", "/mnt/usb"])
    places = ["/mnt/usb", "/mnt/part"]
    assert agent.execute("guest-fsfreeze-freeze-list", mountpoints=places) == 1
    assert status(agent) == "frozen"
    assert agent.execute("guest-fsfreeze-thaw") == 2


def test_what_has_lost_its_disk_takes_no_part(guest: Guest, agent: AgentSocket) -> None:
    """A disk fails under a filesystem; the one mounted after it is frozen nevertheless."""
    with failing_filesystem(guest):
        agent.execute("guest-fsfreeze-freeze")
        assert frozen_places(guest) == set(PLACES)
        agent.execute("guest-fsfreeze-thaw")
        assert frozen_places(guest) == set()
        said = guest.run(["journalctl", "--unit", service.UNIT, "--output=cat"]).stdout
        failure = "failed to freeze /mnt/failing: Input/output error"
        assert f"{failure}; it is left out of the freeze" in said


def test_a_disk_that_is_unplugged_takes_no_part(guest: Guest, agent: AgentSocket) -> None:
    with unplugged_filesystem(guest):
        agent.execute("guest-fsfreeze-freeze")
        assert frozen_places(guest) == set(PLACES)
        agent.execute("guest-fsfreeze-thaw")


def test_nothing_but_what_has_lost_its_disk_is_an_error(guest: Guest, agent: AgentSocket) -> None:
    with failing_filesystem(guest):
        with pytest.raises(AgentError, match="failed to freeze /mnt/failing: Input/output error"):
            agent.execute("guest-fsfreeze-freeze-list", mountpoints=["/mnt/failing"])
        assert status(agent) == "thawed"
        assert frozen_places(guest) == set()
        assert can_write(guest, "/mnt/usb/written")


@pytest.mark.parametrize("way", ["restart", "kill --signal=KILL"])
def test_frozen_outlives_the_agent(guest: Guest, way: str) -> None:
    with guest.connect() as agent:
        frozen = agent.execute("guest-fsfreeze-freeze")
    before = service.main_pid(guest)
    guest.forget_events()
    guest.run(["systemctl", *way.split(), service.UNIT])
    guest.wait_port(AGENT_PORT, is_open=False)
    with guest.connect() as agent, thawed_after(agent):
        assert service.main_pid(guest) not in {0, before}
        assert status(agent) == "frozen"
        assert frozen_places(guest) == set(PLACES)
        with pytest.raises(AgentError, match="the command is not allowed"):
            agent.execute("guest-get-osinfo")
        assert agent.execute("guest-fsfreeze-thaw") == frozen
        assert status(agent) == "thawed"
        assert frozen_places(guest) == set()
        assert agent.execute("guest-get-osinfo")


@contextmanager
def agent_without(guest: Guest, *limits: str) -> Iterator[AgentSocket]:
    """An agent whose state directory is /run/state, with these settings."""
    guest.run(["mkdir", "-p", STATE])
    options = ["-t", STATE]
    by_hand = service.by_hand(guest, *options, limits=limits)
    with service.stopped(guest), by_hand, guest.connect() as agent, thawed_after(agent):
        yield agent


STATE = "/run/state"
MARKER = f"{STATE}/qga.state.isfrozen"


@contextmanager
def full_state(guest: Guest) -> Iterator[None]:
    """No room in the state directory."""
    guest.run(
        ["/bin/sh", "-ec", f"mkdir -p {STATE}; mount -t tmpfs -o size=16k,nr_inodes=9 t {STATE}"]
    )
    try:
        yield
    finally:
        guest.run(["umount", "--lazy", STATE])


def test_a_freeze_that_cannot_be_remembered_leaves_no_trace(guest: Guest) -> None:
    with full_state(guest), agent_without(guest) as agent:
        guest.run(["/bin/sh", "-c", f"cat /dev/zero >{STATE}/filler"], check=False)
        before = guest.run(["ls", "-A", STATE]).stdout
        with pytest.raises(AgentError, match="mark the agent as frozen: No space left on device"):
            agent.execute("guest-fsfreeze-freeze-list", mountpoints=["/mnt/usb"])
        assert guest.run(["ls", "-A", STATE]).stdout == before
        assert status(agent) == "thawed"
        assert agent.execute("guest-get-host-name")
        guest.run(["rm", f"{STATE}/filler"])
        assert agent.execute("guest-fsfreeze-freeze-list", mountpoints=["/mnt/usb"]) == 1


@pytest.mark.parametrize(
    "make",
    [
        f"true >{MARKER}",
        f"printf '[fro' >{MARKER}",
        f"head -c 100 /dev/urandom >{MARKER}",
        f"mkdir {MARKER}",
        f"mkfifo {MARKER}",
    ],
)
def test_a_marker_that_says_nothing_is_not_believed(guest: Guest, make: str) -> None:
    guest.run(["/bin/sh", "-ec", f"rm -rf {STATE}; mkdir -p {STATE}; {make}"])
    with agent_without(guest) as agent:
        assert status(agent) == "thawed"
        assert agent.execute("guest-get-host-name")
        assert frozen_places(guest) == set()


def test_a_marker_that_says_nothing_of_what_is_frozen(guest: Guest) -> None:
    guest.run(["/bin/sh", "-ec", f"rm -rf {STATE}; mkdir -p {STATE}; true >{MARKER}"])
    guest.run(["fsfreeze", "--freeze", "/mnt/usb"])
    with agent_without(guest) as agent:
        assert status(agent) == "frozen"
        assert frozen_places(guest) == {"/mnt/usb"}
        assert agent.execute("guest-fsfreeze-thaw") == 1
        assert frozen_places(guest) == set()


def test_a_thaw_that_cannot_look_is_an_error(guest: Guest) -> None:
    """A host alone cannot cause that, because some descriptors are reserved."""
    guest.run(["rm", "-rf", STATE])
    with agent_without(guest, "LimitNOFILE=64") as agent:
        handles = open_all(guest, agent)
        guest.run(["fsfreeze", "--freeze", "/mnt/usb"])
        with pytest.raises(AgentError, match="Too many open files"):
            agent.execute("guest-fsfreeze-thaw")
        for handle in handles:
            agent.execute("guest-file-close", handle=handle)
        assert agent.execute("guest-fsfreeze-thaw") == 1


def test_a_freeze_keeps_descriptors_for_its_thaw(guest: Guest) -> None:
    guest.run(["rm", "-rf", STATE])
    with agent_without(guest, "LimitNOFILE=64") as agent:
        handles = open_all(guest, agent)
        with pytest.raises(AgentError, match="Too many open files"):
            agent.execute("guest-fsfreeze-freeze-list", mountpoints=["/mnt/usb"])
        assert frozen_places(guest) == set()
        for handle in handles[:12]:
            agent.execute("guest-file-close", handle=handle)
        assert agent.execute("guest-fsfreeze-freeze-list", mountpoints=["/mnt/usb"]) == 1
        assert agent.execute("guest-fsfreeze-thaw") == 1


# As of this moment the agent may have no descriptor beyond those that it has.
NO_MORE = r"""
for process in /proc/[0-9]*; do
    case $(readlink $process/exe) in
    */python3*)
        tr '\0' ' ' <$process/cmdline | grep -q -e "-t /run/state" && pid=${process#/proc/} ;;
    esac
done
prlimit --pid $pid --nofile=$(ls /proc/$pid/fd | sort -n | tail -n 1 | xargs expr 1 +):64
"""


def open_all(guest: Guest, agent: AgentSocket) -> list[int]:
    """Open handles until no more files can be opened."""
    handles = [agent.execute("guest-file-open", path="/etc/hostname") for _ in range(20)]
    guest.run(["/bin/sh", "-ec", NO_MORE])
    with pytest.raises(AgentError, match=r"Too many open files|failed to commit"):
        while True:
            handles.append(agent.execute("guest-file-open", path="/etc/hostname"))
    return handles
