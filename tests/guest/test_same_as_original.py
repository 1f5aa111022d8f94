"""Every command that changes nothing, and every refusal, against the original in the same guest.

The commands on files and on programs are compared outside of a guest, in tests/differential.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from time import time_ns
from typing import Any

import pytest

from tests.differences import differs
from tests.differential import wire

from . import differences
from .agent_socket import AgentSocket
from .comparing import READ_ONLY, compare
from .image import CHECKOUT
from .vm import Guest

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("disks", "person")]

INTERFACE = json.loads((CHECKOUT / "tests/interface.json").read_text())
COMMANDS = INTERFACE["commands"]
TYPES = INTERFACE["types"]
# A volume over six disks of eight: the order of what it depends on is none that sorting gives.
STRIPES = """
modprobe loop max_loop=8
truncate -s 8M /run/stripe
start=0
for disk in 5 0 3 6 1 7; do
    losetup /dev/loop$disk /run/stripe
    echo "$start 8192 linear /dev/loop$disk 0"
    start=$((start + 8192))
done >/run/stripes
dmsetup create stripes </run/stripes
udevadm settle
"""
# udev looks at each device that changes, and has it open for so long.
NO_STRIPES = """
dmsetup remove --retry stripes
udevadm settle
losetup --detach-all
udevadm settle
modprobe --remove loop
"""


@pytest.fixture(scope="module", autouse=True)
def more_to_tell(guest: Guest, disks: None) -> Iterator[None]:
    """What the replies should have in them besides what the guest has anyway."""
    guest.run(["/bin/sh", "-ec", "mkdir -p /run/twice; mount --bind /mnt/usb /run/twice"])
    guest.run(["/bin/sh", "-ec", "ip address add 192.0.2.7/29 dev eth0 label eth0:1"])
    guest.run(["/bin/sh", "-ec", "ip link add dummy type dummy"])
    guest.run(["/bin/sh", "-ec", STRIPES])
    yield
    guest.run(["/bin/sh", "-ec", NO_STRIPES])
    guest.run(["/bin/sh", "-ec", "ip link delete dummy; rm /run/stripe*"])
    guest.run(["/bin/sh", "-ec", "ip address delete 192.0.2.7/29 dev eth0; umount /run/twice"])


@pytest.mark.parametrize("command", READ_ONLY)
def test_same_reply(guest: Guest, agent: AgentSocket, command: str) -> None:
    assert guest.original is not None
    compare(guest.original, agent, command, differences.DIFFERENCES)


def wrong_values(kind: Any) -> Iterator[str]:
    """JSON values that are not of this type."""
    if isinstance(kind, list):
        yield from ("1", '"a"', "null", "{}", "true")
        yield from (f"[{value}]" for value in wrong_values(kind[0]))
    elif kind in TYPES:
        yield from wrong_structs(TYPES[kind]["data"])
    else:
        yield from {
            "int": ('"1"', "1.5", "true", "null", "[]", "{}", str(2**63), str(-(2**63) - 1)),
            "uint64": ('"1"', "1.5", "true", "null", "[]", "{}", str(2**64)),
            "str": ("1", "1.5", "true", "null", "[]", "{}"),
            "bool": ("1", "1.5", '"true"', "null", "[]", "{}"),
        }[kind]


GOOD = {"int": "1", "uint64": "99999", "str": '"nobody-here"', "bool": "true"}


def good_value(kind: Any) -> str:
    return "[]" if isinstance(kind, list) else GOOD[kind]


def wrong_structs(described: dict[str, Any]) -> Iterator[str]:
    yield from ("1", '"a"', "null", "[]", "{}")
    yield from wrong_members(described)


def wrong_members(described: dict[str, Any]) -> Iterator[str]:
    """Objects of which one member is missing, wrong, or unknown."""
    required = {name: good_value(k) for name, k in described.items() if not name.startswith("*")}
    yield joined({**required, "x": "1"})
    for name, kind in described.items():
        others = {each: value for each, value in required.items() if each != name}
        if name in required:
            yield joined(others)
        for wrong in wrong_values(kind):
            yield joined({**others, name.lstrip("*"): wrong})


def joined(members: dict[str, str]) -> str:
    return "{" + ", ".join(f'"{name}": {value}' for name, value in members.items()) + "}"


COMPARED = sorted(
    name
    for name in COMMANDS
    if not name.startswith(("guest-file-", "guest-exec", "guest-sync"))
    and name not in differences.NEW_COMMANDS
)


def compare_lines(guest: Guest, agent: AgentSocket, command: str, arguments: str) -> None:
    assert guest.original is not None
    request = f'{{"execute": "{command}", "arguments": {arguments}}}\n'.encode()
    lines = []
    for asked in (guest.original, agent):
        asked.send(request)
        lines.append(wire.canonical(asked.read_line() + b"\n").decode())
    theirs, ours = lines
    theirs = re.sub(differences.NOT_OPENED, r"Could not open '\1'", theirs)
    if differences.NO_PASSWORD in theirs:
        ours = re.sub(f'({differences.NO_PASSWORD}): chpasswd: .*nobody-here.*?"', r'\1"', ours)
    assert ours == theirs, request


@differs("password-reason", "vcpu-error", "new-commands")
@pytest.mark.parametrize("command", COMPARED)
def test_same_refusal_of_wrong_parameters(guest: Guest, agent: AgentSocket, command: str) -> None:
    for arguments in wrong_members(COMMANDS[command]["arguments"]):
        compare_lines(guest, agent, command, arguments)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("guest-shutdown", '{"mode": "sleep"}'),
        ("guest-shutdown", '{"mode": ""}'),
        ("guest-set-vcpus", '{"vcpus": []}'),
        ("guest-set-vcpus", '{"vcpus": [{"logical-id": 9999, "online": true}]}'),
        ("guest-set-vcpus", '{"vcpus": [{"logical-id": -1, "online": true}]}'),
        ("guest-set-vcpus", '{"vcpus": [{"logical-id": 0, "online": false}]}'),
        ("guest-set-vcpus", '{"vcpus": [{"logical-id": 0, "online": true}]}'),
        (
            "guest-set-vcpus",
            '{"vcpus": [{"logical-id": 0, "online": true}, {"logical-id": 99, "online": true}]}',
        ),
        ("guest-set-time", '{"time": -1000000}'),
        ("guest-set-time", '{"time": -1000000000}'),
        ("guest-set-time", '{"time": 3155760000000000000}'),
        ("guest-set-time", '{"time": 9223372036854775807}'),
        ("guest-set-memory-blocks", '{"mem-blks": []}'),
        ("guest-set-memory-blocks", '{"mem-blks": [{"phys-index": 99999, "online": true}]}'),
        ("guest-set-memory-blocks", '{"mem-blks": [{"phys-index": -1, "online": false}]}'),
        ("guest-set-memory-blocks", '{"mem-blks": [{"phys-index": 0, "online": true}]}'),
        ("guest-set-memory-blocks", '{"mem-blks": [{"phys-index": 0, "online": false}]}'),
        *(
            (
                "guest-set-user-password",
                f'{{"username": "{user}", "password": "{password}", "crypted": {crypted}}}',
            )
            for crypted in ("true", "false")
            for user, password in (
                ("nobody-here", "YQ=="),
                ("a:b", "YQ=="),
                ("a\\nb", "YQ=="),
                ("person", "YQpi"),
                ("person", "!"),
            )
        ),
        *(
            (f"guest-ssh-{verb}-authorized-keys", arguments)
            for verb in ("add", "remove")
            for arguments in (
                '{"username": "nobody-here", "keys": ["a"]}',
                '{"username": "person", "keys": ["a\\nb"]}',
                '{"username": "person", "keys": ["#a"]}',
                '{"username": "", "keys": []}',
            )
        ),
        ("guest-ssh-get-authorized-keys", '{"username": "nobody-here"}'),
        ("guest-ssh-get-authorized-keys", '{"username": "person"}'),
        ("guest-ssh-remove-authorized-keys", '{"username": "person", "keys": ["a"]}'),
        ("guest-ssh-add-authorized-keys", '{"username": "nobody", "keys": ["a"]}'),
        ("guest-fsfreeze-freeze-list", '{"mountpoints": []}'),
        ("guest-fsfreeze-freeze-list", '{"mountpoints": ["/nowhere"]}'),
        ("guest-fsfreeze-freeze-list", '{"mountpoints": [""]}'),
        ("guest-fsfreeze-thaw", "{}"),
    ],
)
def test_same_answer(guest: Guest, agent: AgentSocket, command: str, arguments: str) -> None:
    compare_lines(guest, agent, command, arguments)


@pytest.mark.parametrize("time", [-1001, -1000, -999, -1, 0, 1999])
def test_same_time_is_set(guest: Guest, agent: AgentSocket, time: int) -> None:
    try:
        compare_lines(guest, agent, "guest-set-time", f'{{"time": {time}}}')
    finally:
        agent.execute("guest-set-time", time=time_ns())


@pytest.mark.parametrize("minimum", [0, 1 << 40, -1, -(2**63), 2**63 - 1])
def test_same_filesystems_are_trimmed(guest: Guest, agent: AgentSocket, minimum: int) -> None:
    """The number of bytes differs, because blocks that are already trimmed are skipped."""
    assert guest.original is not None
    theirs, ours = (
        {each["path"]: each for each in asked.execute("guest-fstrim", minimum=minimum)["paths"]}
        for asked in (guest.original, agent)
    )
    assert theirs.pop(differences.MOUNTED_TWICE)
    assert list(ours) == list(theirs)
    for path, result in theirs.items():
        assert ours[path].keys() == result.keys()
        for member in result.keys() - {"trimmed"}:
            assert ours[path][member] == result[member], path
