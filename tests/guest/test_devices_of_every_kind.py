"""Whatever kind an interface, a disk or a filesystem is of, its entry has what the original's has.

Clients take the members that the original always gives without looking whether they are there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from . import kinds
from .agent_socket import AgentSocket
from .comparing import flat, in_common_order
from .vm import Guest, GuestError

pytestmark = pytest.mark.timeout(1800)

# Where ours knows better: the original finds only some kinds of controllers (QEMU 10.0).
POSITION = re.compile(r".*/(bus-type|bus|target|unit|pci-controller/\w+)")
COUNTERS = re.compile(r".*/(statistics|stats|smart)/.*")


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    with Guest(kinds.hardware) as guest:
        guest.write_file("/run/nbd.py", kinds.NBD)
        set_up(guest, kinds.LINKS)
        set_up(guest, kinds.DISKS)
        yield guest


def set_up(guest: Guest, script: str) -> None:
    """Run a script. If it fails or hangs, the error has its steps and the kernel's last lines."""
    try:
        # On a busy machine each may take five minutes.
        guest.run(["timeout", "570", "/bin/sh", "-exc", script], timeout=600)
    except GuestError as error:
        kernel = guest.run(["/bin/sh", "-c", "dmesg --kernel | tail -n 30"]).stdout
        raise GuestError(f"{error}\n{kernel}") from None


def with_serial(guest: Guest, serial: str) -> set[str]:
    """The disks with this serial number."""
    return set(guest.run(["/bin/sh", "-c", f"{kinds.SERIAL}\nserial {serial}"]).stdout.split())


@pytest.fixture
def agent(guest: Guest) -> Iterator[AgentSocket]:
    with guest.connect() as connected:
        yield connected


def compare(guest: Guest, agent: AgentSocket, command: str) -> list[dict[str, Any]]:
    """Our reply, in which nothing of the original's is missing or other than there."""
    assert guest.original is not None
    theirs, ours = (asked.execute(command) for asked in (guest.original, agent))
    assert len(ours) == len(theirs)
    assert in_common_order(theirs, ours)
    found = flat(ours)
    for path, value in flat(theirs).items():
        if value == [] and any(each.startswith(f"{path}/") for each in found):
            continue  # ours finds the disks below a partition of an array
        assert path in found, f"{path} is {value!r} in the original's reply, and not in ours"
        if COUNTERS.fullmatch(path) or (POSITION.fullmatch(path) and value in (0, -1, "unknown")):
            assert type(found[path]) is type(value), path
        else:
            assert found[path] == value, path
    assert isinstance(ours, list)
    return ours


def test_interfaces(guest: Guest, agent: AgentSocket) -> None:
    names = {each["name"] for each in compare(guest, agent, "guest-network-get-interfaces")}
    assert names >= {f"k-{kind}" for kind in kinds.KINDS_OF_LINKS.split()}
    assert names >= set(kinds.OTHER_LINKS.split())


def test_disks(guest: Guest, agent: AgentSocket) -> None:
    names = {each["name"] for each in compare(guest, agent, "guest-get-disks")}
    assert names >= {f"/dev/{kind}" for kind in kinds.KINDS_OF_DISKS.split()}


@pytest.mark.parametrize("command", ["guest-get-diskstats", "guest-get-fsinfo"])
def test_what_is_on_them(guest: Guest, agent: AgentSocket, command: str) -> None:
    compare(guest, agent, command)


def test_an_nvme_disk_with_several_paths_is_one(guest: Guest, agent: AgentSocket) -> None:
    disks = {each["name"]: each for each in agent.execute("guest-get-disks")}
    ([other], namespaces) = (with_serial(guest, serial) for serial in ("NVME", "PATHS"))
    assert len(namespaces) == 2
    assert {name for name in disks if "nvme" in name} == {other, f"{other}p1", *namespaces}
    assert {disks[name]["address"]["bus-type"] for name in namespaces} == {"nvme"}
