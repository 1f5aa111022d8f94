"""Freeze hooks: which scripts run, in what order, and what happens if one fails."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.differences import differs

from .agent_socket import AgentError, AgentSocket, encode
from .freezing import (
    can_write,
    failing_filesystem,
    frozen_places,
    has_waiting_thread,
    thawed_after,
    waiting_disk,
)
from .service import by_hand, main_pid, open_files, stopped, wait_for
from .vm import AGENT_PORT, SPARE_PORT, Guest

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("disks")]

FOLDER = "/run/hooks"
HOOK = f"{FOLDER}/hook"
LOG = f"{FOLDER}/log"
JOURNAL = f"{FOLDER}/journal"
FIRST, SECOND = f"{HOOK}.d/10-first", f"{HOOK}.d/20-second"
NOTE = f'#!/bin/sh\necho "$0 $1" >>{LOG}\n'
# In one go, for each program that is started takes 30 ms of an emulated processor.
SCRIPTS = f"""
rm -rf {HOOK} {HOOK}.d {LOG}
mkdir {HOOK}.d
: >{JOURNAL}
for script in {HOOK} {FIRST} {SECOND} {HOOK}.d/30-not-executable {SECOND}.dpkg-old; do
    printf %s '{NOTE}' >$script
done
chmod 755 {HOOK} {FIRST} {SECOND} {SECOND}.dpkg-old
"""
SECONDS = 12  # for each script
ORPHAN = 6  # seconds that a freeze lasts of which nobody knows
CONFIGURATION = f"""
[general]
fsfreeze-hook = {HOOK}
fsfreeze-hook-timeout = {SECONDS}
fsfreeze-orphan-timeout = {ORPHAN}
logfile = {FOLDER}/journal

[channel other]
path = /dev/virtio-ports/{SPARE_PORT.name}
"""
WAITING = ["/mnt/usb", "/mnt/crypt"]
PLACES = {"mountpoints": ["/mnt/usb", "/mnt/volume"]}


@pytest.fixture(scope="module")
def agent_with_hooks(guest: Guest) -> Iterator[int]:
    """The process of an agent with hooks and a second channel."""
    guest.plug_port(SPARE_PORT)
    guest.write_file(f"{FOLDER}/qemu-ga.conf", CONFIGURATION)
    options = ["-c", f"{FOLDER}/qemu-ga.conf"]
    try:
        with stopped(guest), by_hand(guest, *options) as unit:
            yield main_pid(guest, unit)
    finally:
        guest.unplug_port(SPARE_PORT)


@pytest.fixture
def agent(guest: Guest, agent_with_hooks: int) -> Iterator[AgentSocket]:
    """A hook and two more after it. None has been called yet."""
    guest.run(["/bin/sh", "-ec", SCRIPTS])
    with guest.connect() as agent:
        yield agent
    with guest.connect() as agent, thawed_after(agent):  # the test may have closed its own
        pass


def write_script(guest: Guest, path: str, text: str) -> None:
    guest.write_file(path, text, mode="755")


def calls(guest: Guest) -> list[str]:
    """The calls of all scripts since the last time."""
    return guest.run(["/bin/sh", "-ec", f"cat {LOG}; : >{LOG}"]).stdout.splitlines()


def refused(agent: AgentSocket, command: str, **arguments: Any) -> str:
    with pytest.raises(AgentError) as caught:
        agent.execute(command, **arguments)
    return str(caught.value)


BEFORE = [f"{HOOK} freeze", f"{FIRST} freeze", f"{SECOND} freeze"]
AFTER = [f"{SECOND} thaw", f"{FIRST} thaw", f"{HOOK} thaw"]


def test_each_before_the_freeze_and_in_reverse_after_the_thaw(
    guest: Guest, agent: AgentSocket
) -> None:
    # Each notes also whether it can write where it will be frozen.
    for script in (HOOK, FIRST, SECOND):
        write_script(guest, script, NOTE + "echo x >/mnt/usb/hook && sync /mnt/usb/hook\n")
    assert agent.execute("guest-fsfreeze-freeze-list", **PLACES) == 2
    assert calls(guest) == BEFORE
    assert frozen_places(guest) == set(PLACES["mountpoints"])
    assert agent.execute("guest-fsfreeze-thaw") == 2
    assert calls(guest) == AFTER


def test_thaw_hooks_run_also_when_nothing_was_frozen_here(guest: Guest, agent: AgentSocket) -> None:
    assert agent.execute("guest-fsfreeze-thaw") == 0
    assert calls(guest) == AFTER


def test_hook_that_runs_the_directory_itself(guest: Guest, agent: AgentSocket) -> None:
    run_parts = 'for script in "$0".d/10-first; do "$script" "$1"; done\n# hook.d\n'
    write_script(guest, HOOK, NOTE + run_parts)
    agent.execute("guest-fsfreeze-freeze-list", **PLACES)
    agent.execute("guest-fsfreeze-thaw")
    assert calls(guest) == [*BEFORE[:2], f"{HOOK} thaw", f"{FIRST} thaw"]


@differs("hook-named")
def test_failing_hook_leaves_all_thawed_and_is_undone(guest: Guest, agent: AgentSocket) -> None:
    write_script(guest, FIRST, NOTE + "[ $1 = thaw ] || { echo no >&2; exit 3; }\n")
    assert refused(agent, "guest-fsfreeze-freeze") == (
        f"fsfreeze hook has failed with status 3: {FIRST} freeze: no"
    )
    assert calls(guest) == [*BEFORE[:2], *AFTER[1:]]
    assert agent.execute("guest-fsfreeze-status") == "thawed"
    assert frozen_places(guest) == set()


def test_hook_that_dies_of_a_signal(guest: Guest, agent: AgentSocket) -> None:
    write_script(guest, HOOK, NOTE + "kill -9 $$\n")
    assert refused(agent, "guest-fsfreeze-freeze") == (
        f"fsfreeze hook has terminated abnormally by signal 9: {HOOK} freeze"
    )
    assert calls(guest) == [BEFORE[0], AFTER[2]]


@pytest.mark.parametrize("hang", ["sleep 1000", "yes"])
def test_hook_that_hangs_is_killed(guest: Guest, agent: AgentSocket, hang: str) -> None:
    write_script(guest, SECOND, f"{NOTE}[ $1 = thaw ] || {{ {hang}; }}\n")
    assert refused(agent, "guest-fsfreeze-freeze") == (
        f"fsfreeze hook has failed: {SECOND} freeze: it took over {SECONDS} s and was killed"
    )
    assert calls(guest) == [*BEFORE, *AFTER]
    wait_for(lambda: not any_runs(guest, "sleep|yes"), "the end of what the hook has started")
    assert frozen_places(guest) == set()


def any_runs(guest: Guest, names: str) -> bool:
    """Whether the agent's unit has a process of one of these names, zombies included."""
    of_the_unit = "while read -r comm; do grep -l /by-hand- ${comm%comm}cgroup; done"
    script = f"grep -lxE '{names}' /proc/[0-9]*/comm | {of_the_unit}"
    return bool(guest.run(["sh", "-c", script], check=False).stdout)


def test_hooks_are_undone_when_the_freeze_fails(guest: Guest, agent: AgentSocket) -> None:
    with failing_filesystem(guest):
        error = refused(agent, "guest-fsfreeze-freeze-list", mountpoints=["/mnt/failing"])
    assert "failed to freeze /mnt/failing" in error
    assert calls(guest) == [*BEFORE, *AFTER]


def test_failing_thaw_hook_does_not_undo_the_thaw(guest: Guest, agent: AgentSocket) -> None:
    write_script(guest, FIRST, NOTE + "[ $1 = freeze ] || exit 4\n")
    agent.execute("guest-fsfreeze-freeze-list", **PLACES)
    assert refused(agent, "guest-fsfreeze-thaw") == (
        f"fsfreeze hook has failed with status 4: {FIRST} thaw"
    )
    assert calls(guest) == [*BEFORE, *AFTER]
    assert agent.execute("guest-fsfreeze-status") == "thawed"
    assert frozen_places(guest) == set()


def test_missing_hook(guest: Guest, agent: AgentSocket) -> None:
    guest.run(["rm", "-rf", HOOK, f"{HOOK}.d"])
    assert refused(agent, "guest-fsfreeze-freeze") == (
        f"can't access fsfreeze hook '{HOOK}': No such file or directory"
    )
    write_script(guest, HOOK, NOTE)


@pytest.fixture
def slow_freeze(guest: Guest, agent: AgentSocket) -> AgentSocket:
    """A freeze whose hook waits until somebody writes to /run/hooks/go."""
    guest.run(["/bin/sh", "-ec", f"rm -f {FOLDER}/go; mkfifo {FOLDER}/go"])
    write_script(guest, FIRST, f"{NOTE}[ $1 = thaw ] || read go <{FOLDER}/go\n")
    agent.send(encode("guest-fsfreeze-freeze-list", PLACES))
    wait_for(lambda: BEFORE[1] in guest.run(["cat", LOG], check=False).stdout, "the hook")
    return agent


def go(guest: Guest) -> None:
    guest.run(["timeout", "30", "sh", "-c", f"echo >{FOLDER}/go"])


def test_others_are_answered_during_a_slow_freeze(guest: Guest, slow_freeze: AgentSocket) -> None:
    with guest.connect(SPARE_PORT) as other:
        assert other.execute("guest-ping") == {}
        with pytest.raises(AgentError, match="a freeze is already in progress"):
            other.execute("guest-fsfreeze-freeze")
        go(guest)
        assert json.loads(slow_freeze.read_line()) == {"return": 2}
        assert other.execute("guest-fsfreeze-status") == "frozen"


def ask_status(agent: AgentSocket) -> None:
    agent.send(encode("guest-fsfreeze-status"))


def told_status(agent: AgentSocket) -> str:
    status: str = json.loads(agent.read_line())["return"]
    return status


def test_status_waits_for_a_freeze_on_any_channel(guest: Guest, slow_freeze: AgentSocket) -> None:
    with guest.connect(SPARE_PORT) as other:
        for _ in range(2):  # whoever asks once more has given up on the first answer
            other.sync()
            ask_status(other)
            assert other.is_silent(2)
        go(guest)
        assert json.loads(slow_freeze.read_line()) == {"return": 2}
        assert told_status(other) == "frozen"
        assert other.is_silent(1)


def test_the_same_is_answered_after_a_sync(guest: Guest, slow_freeze: AgentSocket) -> None:
    slow_freeze.sync()
    assert slow_freeze.execute("guest-ping") == {}
    ask_status(slow_freeze)
    assert slow_freeze.is_silent(2)
    go(guest)
    assert told_status(slow_freeze) == "frozen"


def test_a_freeze_lasts_when_its_status_was_asked_for(
    guest: Guest, slow_freeze: AgentSocket
) -> None:
    """As Proxmox VE does: a new connection, with sync and command in one write."""
    slow_freeze.close()
    with AgentSocket(guest.channel_path(AGENT_PORT)) as again:
        number = 4711
        sync = encode("guest-sync-delimited", {"id": number})
        again.send(sync + encode("guest-fsfreeze-status"))
        again.read_delimited(number, time.monotonic() + 10)
        assert again.is_silent(2)
        go(guest)
        assert told_status(again) == "frozen"
    time.sleep(ORPHAN + 2)
    assert frozen_places(guest) == set(PLACES["mountpoints"])
    with guest.connect() as agent:
        assert agent.execute("guest-fsfreeze-thaw") == 2


def is_thawed(guest: Guest) -> bool:
    return not frozen_places(guest)


def assert_ends_by_itself(guest: Guest) -> None:
    wait_for(lambda: not is_thawed(guest), "the freeze")
    wait_for(lambda: is_thawed(guest), "the thaw")
    wait_for(lambda: calls_so_far(guest) == [*BEFORE, *AFTER], "the thaw's hooks")
    why = f"none has asked for the status within {ORPHAN} s (fsfreeze-orphan-timeout)"
    wait_for(lambda: why in guest.run(["cat", JOURNAL]).stdout, "the line in the log")


def calls_so_far(guest: Guest) -> list[str]:
    return guest.run(["cat", LOG]).stdout.splitlines()


def test_a_freeze_ends_whose_client_has_left(guest: Guest, slow_freeze: AgentSocket) -> None:
    slow_freeze.close()
    time.sleep(1)
    go(guest)
    assert_ends_by_itself(guest)
    with guest.connect() as agent:
        assert agent.execute("guest-fsfreeze-thaw") == 0


def test_a_freeze_ends_whose_client_has_synchronised_again(
    guest: Guest, slow_freeze: AgentSocket
) -> None:
    slow_freeze.sync()
    go(guest)
    assert_ends_by_itself(guest)
    assert slow_freeze.execute("guest-fsfreeze-status") == "thawed"


def test_a_freeze_ends_whose_late_reply_was_not_awaited(
    guest: Guest, slow_freeze: AgentSocket
) -> None:
    """As libvirt does: it stays connected, and its next guest-sync shows that it gave up."""
    go(guest)
    assert json.loads(slow_freeze.read_line()) == {"return": 2}
    assert slow_freeze.execute("guest-sync", id=1) == 1
    assert_ends_by_itself(guest)


def test_a_question_that_was_given_up_does_not_count(
    guest: Guest, slow_freeze: AgentSocket
) -> None:
    slow_freeze.sync()
    ask_status(slow_freeze)
    slow_freeze.sync()
    go(guest)
    assert_ends_by_itself(guest)


def test_a_freeze_that_fails_after_it_was_given_up(guest: Guest, slow_freeze: AgentSocket) -> None:
    write_script(guest, SECOND, NOTE + "[ $1 = thaw ] || exit 1\n")
    slow_freeze.sync()
    go(guest)
    assert slow_freeze.execute("guest-fsfreeze-status") == "thawed"
    assert calls(guest) == [*BEFORE, *AFTER]
    assert is_thawed(guest)


def test_a_later_freeze_has_its_own_time(guest: Guest, slow_freeze: AgentSocket) -> None:
    slow_freeze.sync()
    go(guest)
    wait_for(lambda: not is_thawed(guest), "the freeze")
    assert slow_freeze.execute("guest-fsfreeze-thaw") == 2
    write_script(guest, FIRST, NOTE)
    assert slow_freeze.execute("guest-fsfreeze-freeze-list", **PLACES) == 2
    time.sleep(ORPHAN + 2)
    assert frozen_places(guest) == set(PLACES["mountpoints"])


def test_status_waits_for_a_thaw_and_its_hooks(guest: Guest, agent: AgentSocket) -> None:
    write_script(guest, FIRST, f"{NOTE}[ $1 = freeze ] || sleep 5\n")
    agent.execute("guest-fsfreeze-freeze-list", **PLACES)
    calls(guest)
    agent.send(encode("guest-fsfreeze-thaw"))
    wait_for(lambda: AFTER[1] in calls_so_far(guest), "the hook")
    with guest.connect(SPARE_PORT) as other:
        assert other.execute("guest-ping") == {}
        ask_status(other)
        assert other.is_silent(1)
        assert told_status(other) == "thawed"
        assert calls_so_far(guest) == AFTER
    assert json.loads(agent.read_line()) == {"return": 2}


def test_a_freeze_waits_for_a_thaw(guest: Guest, agent: AgentSocket) -> None:
    """A thaw that is still running does not thaw the new freeze."""
    write_script(guest, FIRST, f"{NOTE}[ $1 = freeze ] || sleep 4\n")
    agent.execute("guest-fsfreeze-freeze-list", **PLACES)
    calls(guest)
    agent.send(encode("guest-fsfreeze-thaw"))
    wait_for(lambda: AFTER[1] in calls_so_far(guest), "the hook")
    with guest.connect(SPARE_PORT) as other:
        assert other.execute("guest-fsfreeze-freeze-list", **PLACES) == 2
        assert calls_so_far(guest) == [*AFTER, *BEFORE]
        assert other.execute("guest-fsfreeze-status") == "frozen"
        assert frozen_places(guest) == set(PLACES["mountpoints"])


def test_thaw_ends_a_slow_freeze(guest: Guest, slow_freeze: AgentSocket) -> None:
    with guest.connect(SPARE_PORT) as other:
        assert other.execute("guest-fsfreeze-thaw") == 0
        go(guest)
        reply = json.loads(slow_freeze.read_line())
        assert reply["error"]["desc"] == "the freeze was ended by guest-fsfreeze-thaw"
        assert frozen_places(guest) == set()
        assert other.execute("guest-fsfreeze-status") == "thawed"


@pytest.fixture
def waiting_freeze(
    guest: Guest, agent: AgentSocket, agent_with_hooks: int
) -> Iterator[AgentSocket]:
    """A freeze that has frozen /mnt/usb and waits for the disk of /mnt/crypt."""
    with waiting_disk(guest):
        agent.send(encode("guest-fsfreeze-freeze-list", {"mountpoints": WAITING}))
        wait_for(lambda: waits_for(guest, agent_with_hooks, "/mnt/crypt"), "the freeze to wait")
        yield agent


def waits_for(guest: Guest, pid: int, place: str) -> bool:
    """Whether a freeze waits for this filesystem's disk, and not, for a moment, for another's."""
    return place in open_files(guest, pid) and has_waiting_thread(guest, pid)


def end_wait(guest: Guest) -> None:
    guest.run(["dmsetup", "resume", "crypt"])


def test_others_are_answered_while_a_freeze_waits(
    guest: Guest, waiting_freeze: AgentSocket
) -> None:
    with guest.connect(SPARE_PORT) as other:
        assert other.execute("guest-ping") == {}
        ask_status(other)
        assert other.is_silent(1)
        end_wait(guest)
        assert told_status(other) == "frozen"
        assert json.loads(waiting_freeze.read_line()) == {"return": 2}
        assert frozen_places(guest) == set(WAITING)
        assert other.execute("guest-fsfreeze-thaw") == 2


def test_thaw_ends_a_freeze_that_waits(guest: Guest, waiting_freeze: AgentSocket) -> None:
    with guest.connect(SPARE_PORT) as other:
        assert other.execute("guest-fsfreeze-thaw") == 1
        assert can_write(guest, "/mnt/usb/written")
        assert other.execute("guest-get-host-name")
        end_wait(guest)
        reply = json.loads(waiting_freeze.read_line())
        assert reply["error"]["desc"] == "the freeze was ended by guest-fsfreeze-thaw"
        assert frozen_places(guest) == set()
