"""Commands that change a guest: its clocks, processors, memory, passwords and free blocks."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import hardware, users
from .agent_socket import AgentError, AgentSocket
from .service import wait_for
from .vm import Guest

pytestmark = pytest.mark.timeout(900)

SECOND = 10**9
YEAR_2033 = 2_000_000_000
# Seconds: one clock is set to whole ones, and a busy machine reads them one after the other.
APART = 20
INDIA = 19_800  # seconds ahead of UTC


def clocks(guest: Guest) -> tuple[int, int]:
    """The system clock and the hardware clock, in seconds since 1970."""
    script = "date +%s; cat /sys/class/rtc/rtc0/since_epoch"
    system, hardware_clock = guest.run(["/bin/sh", "-c", script]).stdout.split()
    return int(system), int(hardware_clock)


def test_time_is_set_on_both_clocks(guest: Guest, agent: AgentSocket) -> None:
    before = clocks(guest)
    try:
        agent.execute("guest-set-time", time=YEAR_2033 * SECOND + 5000)
        for clock in clocks(guest):
            assert YEAR_2033 <= clock < YEAR_2033 + 60
    finally:
        agent.execute("guest-set-time", time=before[0] * SECOND)
    assert clocks(guest)[0] - before[0] < 60


def test_time_is_taken_from_the_hardware_clock(guest: Guest, agent: AgentSocket) -> None:
    before, right = clocks(guest)
    guest.run(["date", "--set=2033-05-18"])
    try:
        agent.execute("guest-set-time")
        system, hardware_clock = clocks(guest)
    finally:
        guest.run(["date", f"--set=@{before}"])
    assert right <= hardware_clock < right + 60
    assert abs(system - hardware_clock) < APART


def test_time_is_set_also_without_a_hardware_clock(guest: Guest, agent: AgentSocket) -> None:
    before = clocks(guest)[0]
    guest.run(["mv", "/dev/rtc0", "/dev/rtc0.away"])
    try:
        agent.execute("guest-set-time", time=YEAR_2033 * SECOND)
        assert YEAR_2033 <= clocks(guest)[0] < YEAR_2033 + 60
        with pytest.raises(AgentError, match="hardware clock /dev/rtc0: No such file"):
            agent.execute("guest-set-time")
    finally:
        guest.run(["mv", "/dev/rtc0.away", "/dev/rtc0"])
        agent.execute("guest-set-time", time=before * SECOND)


def test_hardware_clock_that_runs_in_local_time(guest: Guest, agent: AgentSocket) -> None:
    right = clocks(guest)[0]
    guest.write_file("/etc/adjtime", "0.0 0 0\n0\nLOCAL\n")
    guest.run(["ln", "-sf", "/usr/share/zoneinfo/Asia/Kolkata", "/etc/localtime"])
    try:
        agent.execute("guest-get-timezone")  # takes the new zone in
        agent.execute("guest-set-time", time=right * SECOND)
        system, hardware_clock = clocks(guest)
        assert abs(hardware_clock - system - INDIA) < APART
        agent.execute("guest-set-time")
        assert abs(clocks(guest)[0] - system) < 60
    finally:
        guest.run(["rm", "/etc/adjtime", "/etc/localtime"])
        agent.execute("guest-get-timezone")
        agent.execute("guest-set-time", time=right * SECOND)


def online(guest: Guest) -> str:
    return guest.run(["cat", "/sys/devices/system/cpu/online"]).stdout.strip()


def test_processor_goes_off_and_on(guest: Guest, agent: AgentSocket) -> None:
    off, on = ({"logical-id": 1, "online": state} for state in (False, True))
    try:
        assert agent.execute("guest-set-vcpus", vcpus=[off]) == 1
        assert online(guest) == "0"
        states = {each["logical-id"]: each["online"] for each in agent.execute("guest-get-vcpus")}
        assert states == {0: True, 1: False}
        assert [each["cpu"] for each in agent.execute("guest-get-cpustats")] == [0]
    finally:
        assert agent.execute("guest-set-vcpus", vcpus=[on]) == 1
    assert online(guest) == "0-1"


def total_memory(guest: Guest) -> int:
    """MiB, by /proc/meminfo."""
    line = guest.run(["grep", "MemTotal", "/proc/meminfo"]).stdout
    return int(line.split()[1]) // 1024


@pytest.fixture
def new_memory(guest: Guest, agent: AgentSocket) -> Iterator[int]:
    """The number of a memory block that was plugged in and is not online yet."""
    policy = "/sys/module/memory_hotplug/parameters/online_policy"
    guest.run(["/bin/sh", "-ec", f"echo auto-movable >{policy}"])  # so that it can go off again
    before = blocks(agent)
    more = {"qom_type": "memory-backend-memfd", "id": "more", "size": 128 << 20, "share": True}
    guest.qmp("object-add", **more)  # the vsock device shares all memory
    guest.qmp("device_add", driver="pc-dimm", id="dimm", memdev="more")
    try:
        (number,) = wait_for(lambda: blocks(agent) - before, "a new memory block")
        yield number
    finally:
        guest.qmp("device_del", id="dimm")
        guest.wait_event("DEVICE_DELETED", device="dimm")
        guest.qmp("object-del", id="more")


def blocks(agent: AgentSocket) -> set[int]:
    return {each["phys-index"] for each in agent.execute("guest-get-memory-blocks")}


def set_block(agent: AgentSocket, number: int, *, is_online: bool) -> Any:
    wish = {"phys-index": number, "online": is_online}
    return agent.execute("guest-set-memory-blocks", mem_blks=[wish])


def test_memory_block_goes_online_and_offline(
    guest: Guest, agent: AgentSocket, new_memory: int
) -> None:
    before = total_memory(guest)
    assert agent.execute("guest-get-memory-block-info") == {"size": 128 << 20}
    assert set_block(agent, new_memory, is_online=True) == [
        {"phys-index": new_memory, "response": "success"}
    ]
    assert total_memory(guest) == before + 128
    assert set_block(agent, new_memory, is_online=False) == [
        {"phys-index": new_memory, "response": "success"}
    ]
    assert total_memory(guest) == before


def test_memory_block_that_is_in_use_cannot_go_off(guest: Guest, agent: AgentSocket) -> None:
    """The kernel itself is in the first one."""
    assert guest.original is not None
    (result,) = set_block(agent, 0, is_online=False)
    assert result["response"] == "operation-failed"
    assert [result] == set_block(guest.original, 0, is_online=False)


def set_password(agent: AgentSocket, password: str, *, crypted: bool) -> None:
    encoded = base64.b64encode(password.encode()).decode()
    agent.execute("guest-set-user-password", username="person", password=encoded, crypted=crypted)


@pytest.mark.usefixtures("person")
def test_password(guest: Guest, agent: AgentSocket) -> None:
    set_password(agent, "sécret: word", crypted=False)
    stored = users.stored_password(guest, "person")
    assert stored.startswith("$")
    assert (
        users.crypt(guest, "sécret: word", stored)
        == stored
        != users.crypt(guest, "another", stored)
    )


@pytest.mark.usefixtures("person")
def test_password_that_is_crypted_already(guest: Guest, agent: AgentSocket) -> None:
    crypted = users.crypt(guest, "another", "$6$salt$")
    set_password(agent, crypted, crypted=True)
    assert users.stored_password(guest, "person") == crypted


def test_password_of_nobody(agent: AgentSocket) -> None:
    with pytest.raises(AgentError, match="child process has failed to set user password"):
        agent.execute(
            "guest-set-user-password", username="nobody-here", password="YQ==", crypted=False
        )


def allocated(path: Path) -> int:
    """Bytes that a file takes up on the host."""
    return path.stat().st_blocks * 512


@pytest.mark.usefixtures("disks")
def test_trim_gives_blocks_back_to_the_host(guest: Guest, agent: AgentSocket) -> None:
    image = hardware.image(guest.folder, "trimmed")
    file = "/mnt/trimmed/file"
    guest.run(["/bin/sh", "-ec", f"head -c 20M /dev/urandom >{file}; sync {file}; rm {file}"])
    guest.run(["sync", "--file-system", "/mnt/trimmed"])
    before = allocated(image)
    assert before > 20 << 20
    paths = {each["path"]: each for each in agent.execute("guest-fstrim")["paths"]}
    assert paths["/mnt/trimmed"]["trimmed"] >= 20 << 20
    assert "minimum" in paths["/mnt/trimmed"]
    # What the trim itself has written, such as the journal, takes up a little.
    assert allocated(image) < before - (19 << 20)


def login_times(agent: AgentSocket) -> dict[str, float]:
    return {each["user"]: each["login-time"] for each in agent.execute("guest-get-users")}


def test_users(guest: Guest, agent: AgentSocket) -> None:
    assert login_times(agent) == {}
    with users.logged_in(guest):
        assert guest.original is not None
        assert agent.execute("guest-get-users") == guest.original.execute("guest-get-users")
        (name,) = login_times(agent)
        assert name == "root"
        assert name in guest.run(["who"]).stdout
    assert login_times(agent) == {}


# utmp(5) with USER_PROCESS records, one of DEAD_PROCESS, and half a record.
SEVERAL = r"""
import struct

logins = [(7, b"b", 900, 250_000), (7, b"a", 500, 0), (8, b"c", 1, 0), (7, b"b", 800, 500_000)]
with open("/run/utmp", "wb") as file:
    for kind, user, seconds, microseconds in logins:
        head = struct.pack("hi32s4s32s256shhi", kind, 1, b"pts/0", b"0", user, b"", 0, 0, 0)
        file.write((head + struct.pack("ii", seconds, microseconds)).ljust(384, b"\0"))
    file.write(b"\7\0\0")
"""


def test_users_are_reported_once_with_their_first_login(guest: Guest, agent: AgentSocket) -> None:
    assert guest.original is not None
    guest.python(SEVERAL)
    try:
        told = agent.execute("guest-get-users")
        assert told == [{"user": "b", "login-time": 800.5}, {"user": "a", "login-time": 500}]
        assert told == guest.original.execute("guest-get-users")
    finally:
        guest.run(["truncate", "--size=0", "/run/utmp"])


def test_users_without_utmp_are_those_of_logind(guest: Guest, agent: AgentSocket) -> None:
    with users.logind(guest), users.without_utmp(guest), users.greeter(guest):
        assert login_times(agent) == {}
        before = int(guest.run(["date", "+%s"]).stdout)
        with users.logged_in(guest):
            after = int(guest.run(["date", "+%s"]).stdout)
            told = login_times(agent)
            assert told.keys() == {"root"}
            assert before <= told["root"] <= after + 1
        wait_for(lambda: login_times(agent) == {}, "the logout")
