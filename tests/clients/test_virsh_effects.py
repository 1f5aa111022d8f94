"""What virsh changes in the guest through the agent, seen from beside the agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest import users

from .daemon import LibvirtError
from .domain import Domain

pytestmark = pytest.mark.timeout(900)

YEAR_2033 = 2_000_000_000
A, B, C = "ssh-ed25519 AAAA a@host", "ssh-rsa BBBB", "ssh-rsa CCCC c"
KEYS = "/home/person/.ssh/authorized_keys"


def clock(domain: Domain) -> int:
    """The guest's time, in seconds since 1970."""
    return int(domain.run(["date", "+%s"]).stdout)


def domtime(domain: Domain) -> int:
    return int(domain.virsh("domtime").removeprefix("Time: "))


@pytest.fixture
def right_time(domain: Domain) -> Iterator[int]:
    """The guest's time, which it has again afterwards."""
    before = clock(domain)
    yield before
    domain.virsh("domtime", "--time", str(before))


def test_time_is_reported_and_set(domain: Domain, right_time: int) -> None:
    assert right_time <= domtime(domain) <= clock(domain)
    domain.virsh("domtime", "--time", str(YEAR_2033))
    assert YEAR_2033 <= clock(domain) < YEAR_2033 + 60


def test_time_is_set_by_the_machine(domain: Domain, right_time: int) -> None:
    """That which QEMU goes on counting while a guest sleeps."""
    domain.run(["date", f"--set=@{YEAR_2033}"])
    domain.virsh("domtime", "--sync")
    assert right_time <= clock(domain) < right_time + 60


def guestvcpus(domain: Domain) -> dict[str, str]:
    lines = domain.virsh("guestvcpus").strip().splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def online(domain: Domain) -> str:
    return domain.run(["cat", "/sys/devices/system/cpu/online"]).stdout.strip()


def test_processor_goes_off_and_on(domain: Domain) -> None:
    assert guestvcpus(domain) == {"vcpus": "0-1", "online": "0-1", "offlinable": "1"}
    domain.virsh("guestvcpus", "--disable", "--cpulist", "1")
    try:
        assert online(domain) == "0"
        assert guestvcpus(domain) == {"vcpus": "0-1", "online": "0", "offlinable": "1"}
    finally:
        domain.virsh("guestvcpus", "--enable", "--cpulist", "1")
    assert online(domain) == "0-1"


def test_number_of_processors(domain: Domain) -> None:
    domain.virsh("setvcpus", "1", "--guest")
    try:
        assert online(domain) == "0"
        assert domain.virsh("vcpucount", "--guest").strip() == "1"
    finally:
        domain.virsh("setvcpus", "2", "--guest")
    assert online(domain) == "0-1"


def test_password(domain: Domain, person: str) -> None:
    domain.virsh("set-user-password", person, "sécret: word")
    stored = users.stored_password(domain, person)
    assert users.crypt(domain, "sécret: word", stored) == stored


def test_password_that_is_crypted_already(domain: Domain, person: str) -> None:
    crypted = users.crypt(domain, "another", "$6$salt$")
    domain.virsh("set-user-password", person, crypted, "--encrypted")
    assert users.stored_password(domain, person) == crypted


def test_password_of_nobody(domain: Domain) -> None:
    with pytest.raises(LibvirtError, match="failed to set user password"):
        domain.virsh("set-user-password", "nobody-here", "secret")


def test_ssh_keys(domain: Domain, person: str, tmp_path: Path) -> None:
    def change(option: str, *keys: str) -> list[str]:
        """Change the keys as virsh's option says; those that are there afterwards."""
        file = tmp_path / "keys"
        file.write_text("".join(f"{key}\n" for key in keys))
        domain.virsh("set-user-sshkeys", person, *option.split(), "--file", str(file))
        # virsh takes what is behind the last newline for a key, too: an empty one.
        there = [line for line in domain.run(["cat", KEYS]).stdout.splitlines() if line]
        # The last key comes first; virsh 9 puts nothing between them.
        told = domain.virsh("get-user-sshkeys", person).replace("\n", "")
        assert told == "".join(reversed(there))
        return there

    assert change("", A, B) == [A, B]
    assert change("", B, C) == [A, B, C]
    assert change("--remove", B) == [A, C]
    assert change("--reset", B) == [B]
    assert domain.run(["stat", "--format=%U %a", KEYS]).stdout == "person 600\n"
    with pytest.raises(LibvirtError, match="failed to lookup user 'nobody-here'"):
        domain.virsh("get-user-sshkeys", "nobody-here")


def test_trim_gives_blocks_back_to_the_host(domain: Domain) -> None:
    def allocated() -> int:
        return domain.disk("sdc").stat().st_blocks * 512

    file = "/mnt/data/file"
    domain.run(["/bin/sh", "-ec", f"head -c 20M /dev/urandom >{file}; sync {file}; rm {file}"])
    domain.run(["sync", "--file-system", "/mnt/data"])
    before = allocated()
    assert before > 20 << 20
    domain.virsh("domfstrim")
    assert allocated() < before - (19 << 20)
