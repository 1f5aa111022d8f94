"""Each method for a command, against a scripted agent: what is asked, and what comes back."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from qga.client import (
    AgentTimeout,
    CommandError,
    CommandNotFound,
    DiskAddress,
    DiskCounters,
    DiskInfo,
    DiskStats,
    ExecResult,
    FileChunk,
    FilePosition,
    FilesystemInfo,
    Growth,
    GrowthStep,
    GuestAgent,
    IPAddress,
    LoadAverage,
    MemoryBlock,
    MemoryBlockResponse,
    NetworkInterface,
    Processor,
    ProcessorTimes,
    Route,
    TrimResult,
    User,
    connection,
)
from qga.client.storage import PCIAddress
from tests.unit.client_peer import HANG_UP, LATE, Raw, Start

INTERFACE = json.loads((Path(__file__).parents[2] / "interface.json").read_text())

PCI = {"domain": 0, "bus": 1, "slot": 2, "function": 3}
DISK = {"pci-controller": PCI, "bus-type": "virtio", "bus": 0, "target": 0, "unit": 0}
GROWN = {
    "layer": "crypt",
    "device": "/dev/mapper/a",
    "tool": "cryptsetup",
    "before": 1,
    "after": 2,
    "done": True,
}
ADDRESS = DiskAddress("virtio", 0, 0, 0, PCIAddress(0, 1, 2, 3))
TIMES = {"type": "linux", "cpu": 0, "user": 1, "nice": 2, "system": 3, "idle": 4}
NOTHING = Raw(b"")


class Case(NamedTuple):
    """A method's use, what it asks for, with which arguments, what is replied, what it makes."""

    use: Callable[[GuestAgent], Any]
    command: str
    arguments: dict[str, Any]
    reply: Any
    result: Any


CASES = [
    Case(lambda a: a.ping() > 0, "guest-ping", {}, {}, True),
    Case(lambda a: a.echo(7), "guest-sync", {"id": 7}, 7, 7),
    Case(
        lambda a: a.info().version,
        "guest-info",
        {},
        {"version": "1.2.3", "supported_commands": []},
        "1.2.3",
    ),
    Case(lambda a: a.hostname(), "guest-get-host-name", {}, {"host-name": "h"}, "h"),
    Case(lambda a: a.osinfo().id, "guest-get-osinfo", {}, {"id": "debian"}, "debian"),
    Case(lambda a: a.time(), "guest-get-time", {}, 5, 5),
    Case(lambda a: a.timezone().offset, "guest-get-timezone", {}, {"offset": 1}, 1),
    Case(lambda a: a.set_time(), "guest-set-time", {}, {}, None),
    Case(lambda a: a.set_time(0), "guest-set-time", {"time": 0}, {}, None),
    Case(
        lambda a: a.users(),
        "guest-get-users",
        {},
        [{"user": "u", "login-time": 1}],
        [User("u", 1.0)],
    ),
    Case(
        lambda a: a.set_password("u", "ä"),
        "guest-set-user-password",
        {"username": "u", "password": "w6Q=", "crypted": False},
        {},
        None,
    ),
    Case(
        lambda a: a.ssh_keys("u"),
        "guest-ssh-get-authorized-keys",
        {"username": "u"},
        {"keys": ["k"]},
        ["k"],
    ),
    Case(
        lambda a: a.add_ssh_keys("u", ("k",)),
        "guest-ssh-add-authorized-keys",
        {"username": "u", "keys": ["k"], "reset": False},
        {},
        None,
    ),
    Case(
        lambda a: a.remove_ssh_keys("u", ("k",)),
        "guest-ssh-remove-authorized-keys",
        {"username": "u", "keys": ["k"]},
        {},
        None,
    ),
    Case(
        lambda a: a.exec_start(["ls", "-l"], capture="merged"),
        "guest-exec",
        {"path": "ls", "arg": ["-l"], "capture-output": "merged"},
        {"pid": 9},
        9,
    ),
    Case(lambda a: a.exec_status(9), "guest-exec-status", {"pid": 9}, {"exited": False}, None),
    Case(
        lambda a: a.exec_status(9),
        "guest-exec-status",
        {"pid": 9},
        {"exited": True, "exitcode": 0},
        ExecResult(0),
    ),
    Case(lambda a: a.file_open("/f"), "guest-file-open", {"path": "/f", "mode": "r"}, 1000, 1000),
    Case(lambda a: a.file_close(1), "guest-file-close", {"handle": 1}, {}, None),
    Case(
        lambda a: a.file_read(1, 2),
        "guest-file-read",
        {"handle": 1, "count": 2},
        {"count": 1, "buf-b64": "eA==", "eof": True},
        FileChunk(b"x", True),
    ),
    Case(
        lambda a: a.file_write(1, b"x"),
        "guest-file-write",
        {"handle": 1, "buf-b64": "eA=="},
        {"count": 1, "eof": False},
        1,
    ),
    Case(
        lambda a: a.file_seek(1, -1, "end"),
        "guest-file-seek",
        {"handle": 1, "offset": -1, "whence": "end"},
        {"position": 4, "eof": False},
        FilePosition(4, False),
    ),
    Case(lambda a: a.file_flush(1), "guest-file-flush", {"handle": 1}, {}, None),
    Case(
        lambda a: a.disks(),
        "guest-get-disks",
        {},
        [{"name": "/dev/vda", "partition": False, "dependencies": [], "address": DISK}],
        [DiskInfo("/dev/vda", False, (), ADDRESS)],
    ),
    Case(
        lambda a: a.disk_stats(),
        "guest-get-diskstats",
        {},
        [{"name": "vda", "major": 254, "minor": 0, "stats": {"read-ios": 1}}],
        [DiskStats("vda", 254, 0, DiskCounters(read_ios=1))],
    ),
    Case(
        lambda a: a.filesystems(),
        "guest-get-fsinfo",
        {},
        [{"name": "vda", "mountpoint": "/", "type": "ext4", "used-bytes": 1, "disk": [DISK]}],
        [FilesystemInfo("vda", "/", "ext4", (ADDRESS,), 1)],
    ),
    Case(
        lambda a: a.trim(512),
        "guest-fstrim",
        {"minimum": 512},
        {"paths": [{"path": "/", "trimmed": 1}, {"path": "/x", "error": "no"}]},
        [TrimResult("/", 1), TrimResult("/x", error="no")],
    ),
    Case(lambda a: a.freeze().count, "guest-fsfreeze-freeze", {}, 2, 2),
    Case(
        lambda a: a.freeze(("/",)).count,
        "guest-fsfreeze-freeze-list",
        {"mountpoints": ["/"]},
        1,
        1,
    ),
    Case(lambda a: a.thaw(), "guest-fsfreeze-thaw", {}, 2, 2),
    Case(lambda a: a.freeze_status(), "guest-fsfreeze-status", {}, "thawed", "thawed"),
    Case(
        lambda a: a.interfaces(),
        "guest-network-get-interfaces",
        {},
        [
            {
                "name": "lo",
                "ip-addresses": [{"ip-address": "::1", "ip-address-type": "ipv6", "prefix": 128}],
            }
        ],
        [NetworkInterface("lo", None, (IPAddress("::1", "ipv6", 128),))],
    ),
    Case(
        lambda a: a.routes(),
        "guest-network-get-route",
        {},
        [{"iface": "e", "destination": "::", "metric": 1, "nexthop": "::1", "version": 6}],
        [Route("e", "::", 1, 6, nexthop="::1")],
    ),
    Case(
        lambda a: a.processors(),
        "guest-get-vcpus",
        {},
        [{"logical-id": 0, "online": True}],
        [Processor(0, True)],
    ),
    Case(
        lambda a: a.set_processors({1: False}),
        "guest-set-vcpus",
        {"vcpus": [{"logical-id": 1, "online": False}]},
        1,
        1,
    ),
    Case(
        lambda a: a.processor_times(),
        "guest-get-cpustats",
        {},
        [TIMES],
        [ProcessorTimes(0, 1, 2, 3, 4)],
    ),
    Case(
        lambda a: a.load(),
        "guest-get-load",
        {},
        {"load1m": 1, "load5m": 0.5, "load15m": 0},
        LoadAverage(1.0, 0.5, 0.0),
    ),
    Case(
        lambda a: a.memory_blocks(),
        "guest-get-memory-blocks",
        {},
        [{"phys-index": 1, "online": True, "can-offline": True}],
        [MemoryBlock(1, True, True)],
    ),
    Case(lambda a: a.memory_block_size(), "guest-get-memory-block-info", {}, {"size": 128}, 128),
    Case(
        lambda a: a.set_memory_blocks({1: False}),
        "guest-set-memory-blocks",
        {"mem-blks": [{"phys-index": 1, "online": False}]},
        [{"phys-index": 1, "response": "not-found", "error-code": 2}],
        [MemoryBlockResponse(1, "not-found", 2)],
    ),
    Case(lambda a: a.shutdown(), "guest-shutdown", {"mode": "powerdown"}, NOTHING, None),
    Case(lambda a: a.suspend(), "guest-suspend-ram", {}, NOTHING, None),
    Case(lambda a: a.suspend("disk"), "guest-suspend-disk", {}, NOTHING, None),
    Case(lambda a: a.suspend("hybrid"), "guest-suspend-hybrid", {}, NOTHING, None),
]

ROOT = [{"name": "vda1", "mountpoint": "/", "type": "ext4", "disk": []}]


OF_OUR_OWN = [
    Case(
        lambda a: a.grow_filesystem("/", dry_run=True, passphrase="p"),
        "qga-grow-filesystem",
        {"mountpoint": "/", "dry-run": True, "passphrase": "p"},
        {"mountpoint": "/", "type": "xfs", "size": 2, "steps": [GROWN], "obstacles": ["no"]},
        Growth("/", "xfs", 2, (GrowthStep(*GROWN.values()),), ("no",)),  # type: ignore[arg-type]
    ),
]


@pytest.mark.parametrize("case", [*CASES, *OF_OUR_OWN], ids=lambda case: case.command)
def test_a_method(start: Start, case: Case) -> None:
    handlers = {
        "guest-get-fsinfo": lambda _: ROOT,
        "guest-fsfreeze-status": lambda _: "frozen",
        "guest-ping": lambda _: {},
    }
    peer = start({**handlers, case.command: lambda _: case.reply})
    with GuestAgent(peer.address) as agent:
        assert case.use(agent) == case.result
    requests = [request for request in peer.requests if request["execute"] == case.command]
    assert requests[0].get("arguments", {}) == case.arguments


def test_every_command_of_the_interface_has_a_method() -> None:
    methods = {case.command for case in CASES}
    assert methods | {"guest-sync-delimited"} == set(INTERFACE["commands"])


def test_an_order_that_is_refused(start: Start) -> None:
    errors = iter([OSError("CommandNotFound", "no"), OSError("GenericError", "not now")])
    handlers = {"guest-shutdown": lambda _: next(errors), "guest-ping": lambda _: {}}
    with GuestAgent(start(handlers).address) as agent:
        with pytest.raises(CommandNotFound):
            agent.shutdown("reboot")
        with pytest.raises(CommandError, match="guest-shutdown: not now"):
            agent.shutdown("reboot")
        assert agent.call("guest-ping") == {}


def test_a_command_without_a_reply_is_accepted(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ORDER_PATIENCE", 0.05)
    handlers = {"guest-shutdown": lambda _: NOTHING, "guest-ping": lambda _: LATE, "x": lambda _: 1}
    with GuestAgent(start(handlers).address, math.inf) as agent:
        agent.shutdown()
        assert agent.call("x") == 1


def test_a_guest_that_goes_down_at_once_has_carried_out_the_order(start: Start) -> None:
    with GuestAgent(start({"guest-shutdown": lambda _: HANG_UP}).address) as agent:
        agent.shutdown()


def test_an_order_to_an_agent_that_does_not_answer_is_not_carried_out(start: Start) -> None:
    peer = start({})
    peer.deaf = True
    agent = GuestAgent(peer.address, 0.05)
    with pytest.raises(AgentTimeout):
        agent.shutdown()
    agent.close()
    assert peer.requests == []


def test_slow_commands_have_longer_timeouts(start: Start) -> None:
    def trim(_: dict[str, Any]) -> Any:
        threading.Event().wait(0.8)
        return {"paths": []}

    with GuestAgent(start({"guest-fstrim": trim}).address, 0.5) as agent:
        assert agent.trim() == []


@pytest.mark.parametrize(
    "desc",
    [
        # QEMU's agent and ours
        "failed to read '/root/.ssh/authorized_keys': Failed to open file "
        "“/root/.ssh/authorized_keys”: No such file or directory",
        "failed to read '/home/o'n/.ssh/k': Failed to open file “k”: No such file or directory",
    ],
)
def test_an_account_without_a_file_of_keys_has_none(start: Start, desc: str) -> None:
    missing = OSError("GenericError", desc)
    peer = start({"guest-ssh-get-authorized-keys": lambda _: missing})
    with GuestAgent(peer.address) as agent:
        assert agent.ssh_keys("root") == []


@pytest.mark.parametrize(
    "desc",
    [
        "failed to read 'k': Failed to open file “k”: Permission denied",
        "failed to read 'k': Error reading file “k”: Is a directory",
        "failed to lookup user 'x': Success",
    ],
)
def test_a_file_of_keys_that_cannot_be_read_is_an_error(start: Start, desc: str) -> None:
    failure = OSError("GenericError", desc)
    peer = start({"guest-ssh-get-authorized-keys": lambda _: failure})
    with GuestAgent(peer.address) as agent, pytest.raises(CommandError, match="failed to"):
        agent.ssh_keys("root")
