"""Events: what the kernel says, made into what the host is told; the queue between them."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from qga import QgaError

addresses: Any = import_module("qga.commands._address_events")
events: Any = import_module("qga.commands.events")
memory: Any = import_module("qga.commands._memory_events")
mounts: Any = import_module("qga.commands._mount_events")
sessions: Any = import_module("qga.commands._session_events")
users: Any = import_module("qga.commands.users")
watch: Any = import_module("qga.commands._watch")

NEW, GONE = 20, 21
TENTATIVE, DUPLICATE, OPTIMISTIC, PERMANENT = 0x40, 0x08, 0x04, 0x80


class Told(list[Any]):
    """The events so far, each as its name and its members."""

    def __call__(self, name: str, /, **members: Any) -> None:
        self.append((name, members))


@pytest.fixture
def told() -> Told:
    return Told()


def message(kind: int, text: str, prefix: int, flags: int = PERMANENT, link: int = 1) -> bytes:
    """What the kernel sends about an address (rtnetlink(7)), with a label, which needs padding."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    raw = socket.inet_pton(family, text)
    attributes = struct.pack("=HH", 4 + len(raw), 1) + raw
    attributes += struct.pack("=HH", 4 + 3, 3) + b"lo\0" + b"\0"
    content = struct.pack("=BBBBI", family, prefix, flags, 0, link) + attributes
    return struct.pack("=IHHII", 16 + len(content), kind, 0, 0, 0) + content


@pytest.fixture
def listener(told: Told, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(addresses, "usable_addresses", lambda: iter(()))
    found = addresses.Addresses(told)
    yield found
    found._kernel.close()


def described(address: str, prefix: int, link: str = "lo") -> dict[str, Any]:
    return {"interface": link, "address": address, "prefix": prefix}


def test_addresses_come_and_go(listener: Any, told: Told) -> None:
    listener.take(message(NEW, "192.0.2.7", 24) + message(NEW, "2001:db8::1", 64))
    listener.take(message(GONE, "192.0.2.7", 24))
    assert told == [
        ("address-added", described("192.0.2.7", 24)),
        ("address-added", described("2001:db8::1", 64)),
        ("address-removed", described("192.0.2.7", 24)),
    ]


def test_an_address_is_reported_once_it_can_be_used(listener: Any, told: Told) -> None:
    listener.take(message(NEW, "2001:db8::1", 64, TENTATIVE))
    assert told == []
    listener.take(message(NEW, "2001:db8::1", 64))
    listener.take(message(NEW, "2001:db8::1", 64))  # a renewal
    listener.take(message(NEW, "2001:db8::2", 64, TENTATIVE | OPTIMISTIC))
    listener.take(message(NEW, "2001:db8::3", 64, TENTATIVE | DUPLICATE))
    listener.take(message(GONE, "2001:db8::3", 64, TENTATIVE | DUPLICATE))
    assert [(name, members["address"]) for name, members in told] == [
        ("address-added", "2001:db8::1"),
        ("address-added", "2001:db8::2"),
    ]


def test_the_link_of_an_address_that_goes_may_have_gone_before(listener: Any, told: Told) -> None:
    listener.take(message(NEW, "192.0.2.7", 24, link=4321))
    assert told == [("address-added", described("192.0.2.7", 24, "4321"))]


def test_after_lost_messages_all_addresses_are_read_again(
    listener: Any, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener.take(message(NEW, "192.0.2.7", 24) + message(NEW, "192.0.2.8", 24))
    told.clear()
    now = [addresses.Address(1, "lo", 4, text, 24) for text in ("192.0.2.8", "192.0.2.9")]
    monkeypatch.setattr(addresses, "usable_addresses", lambda: iter(now))
    listener._look_again()
    assert told == [
        ("missed", {"kind": "address"}),
        ("address-removed", described("192.0.2.7", 24)),
        ("address-added", described("192.0.2.9", 24)),
    ]


def test_of_many_addresses_the_first_are_remembered(
    listener: Any, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "MAX_KNOWN", 2)
    for number in range(3):
        listener.take(message(NEW, f"192.0.2.{number}", 24))
    assert len(listener._known) == 2
    for number in range(3):
        listener.take(message(GONE, f"192.0.2.{number}", 24))
    assert [name for name, _ in told] == ["address-added"] * 3 + ["address-removed"] * 2


def test_addresses_of_this_machine_are_those_of_the_kernel() -> None:
    """The loopback has one, and it is not tentative."""
    found = {(each.address, each.prefix) for each in addresses.usable_addresses()}
    assert ("127.0.0.1", 8) in found


TABLE = rb"""21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
22 21 0:20 / /proc rw,nosuid - proc proc rw
23 21 0:21 / /run rw shared:5 - tmpfs tmpfs rw
40 21 254:16 / /mnt/a\040b ro,relatime - xfs /dev/vdb rw
41 21 0:50 / /srv rw shared:9 master:2 - nfs4 server:/srv rw,vers=4.2
"""


def test_the_table_of_mounts() -> None:
    found = mounts.parse(TABLE)
    assert list(found) == [21, 40, 41]
    assert found[40] == ("/mnt/a b", "xfs", "/dev/vdb", True, "254:16")
    assert (found[21].read_only, found[41].source) == (False, "server:/srv")


@pytest.mark.parametrize("words", [b"ro,errors=remount-ro", b"rw,emergency_ro"])
def test_a_filesystem_that_turned_read_only(words: bytes) -> None:
    after = TABLE.replace(b"rw,errors=remount-ro", words)
    before = mounts.parse(TABLE)
    root = {"mountpoint": "/", "type": "ext4", "device": "/dev/vda"}
    assert mounts.changes(before, mounts.parse(after)) == [("filesystem-read-only", root)]
    assert mounts.changes(mounts.parse(after), before) == [("filesystem-writable", root)]


def test_ext4_that_gives_up_writing_without_a_sign_in_the_table(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = TABLE
    monkeypatch.setattr(mounts, "read_kept", lambda _path: table)
    monkeypatch.setattr(mounts, "_name_of", {"254:0": "vda", "254:16": "vdb"}.get)
    found = mounts.Mounts(told)
    os.close(found._table)
    found._note_failure(b"EXT4-fs (vda): Remounting filesystem read-only")
    found.look()
    found.look()
    assert told == [
        ("filesystem-read-only", {"mountpoint": "/", "type": "ext4", "device": "/dev/vda"})
    ]
    table = TABLE.replace(b"21 1 254:0", b"21 1 0:99")  # it is unmounted
    found.look()
    assert found._failed == set()


def test_mounts_come_and_go_also_under_an_old_id() -> None:
    before = mounts.parse(TABLE)
    after = mounts.parse(
        TABLE.replace(b"/srv rw shared:9", b"/data rw").replace(b"40 21", b"42 21")
    )
    found = {(name, members["mountpoint"]) for name, members in mounts.changes(before, after)}
    assert found == {
        ("filesystem-unmounted", "/mnt/a b"),
        ("filesystem-unmounted", "/srv"),
        ("filesystem-mounted", "/mnt/a b"),
        ("filesystem-mounted", "/data"),
    }


def test_a_threshold_is_passed_once_each_way(told: Told) -> None:
    usage = mounts.Usage(told, 90, 10, lambda *_: None)
    for percent in (89.0, 90.0, 95.0, 86.0, 84.9, 84.0):
        usage._compare({"/": percent}, None)
    assert told == [
        ("usage-above", {"mountpoint": "/", "used-percent": 90.0}),
        ("usage-below", {"mountpoint": "/", "used-percent": 84.9}),
    ]
    usage._compare(None, OSError())  # a look that failed


def test_pressure_and_the_kernels_log(told: Told) -> None:
    text = b"some avg10=1.23 avg60=0 avg300=0 total=5\nfull avg10=0.50 avg60=0 avg300=0 total=2\n"
    assert memory.pressure_of(text) == {"some-avg10-percent": 1.23, "full-avg10-percent": 0.5}
    line = (
        b"Out of memory: Killed process 812 (a (b)) total-vm:9kB, anon-rss:5kB, UID:0 pgtables:1kB"
    )
    record = b"3,1234,5678,-;" + line + b"\n SUBSYSTEM=mm\n"
    assert memory.line_of_kernel(record) == line
    assert memory.line_of_kernel(b"11,1234,5678,-;" + line) == b""  # a program wrote it
    kills = memory.Kills(told)
    kills.on_kernel_line(line)
    kills.on_kernel_line(b"Memory cgroup out of memory: Killed process 7 (x), UID 0, total-vm:1kB")
    kills.on_kernel_line(b"oom_reaper: reaped process 812 (a), now anon-rss:0kB")
    assert told == [
        ("out-of-memory", {"pid": 812, "name": "a (b)"}),
        ("out-of-memory", {"pid": 7, "name": "x"}),
    ]


def test_the_first_of_a_group_that_is_killed_is_reported_once(told: Told) -> None:
    kills = memory.Kills(told)
    line = b"Memory cgroup out of memory: Killed process %d (x) total-vm:1kB, anon-rss:1kB"
    group = b"Tasks in /a are going to be killed due to memory.oom.group set"
    for text in (line % 7, group, line % 8, line % 7, line % 7):
        kills.on_kernel_line(text)
    assert [members["pid"] for _, members in told] == [7, 8, 7]


@pytest.mark.parametrize(
    ("name", "between"),
    [("x", b"sh invoked oom-killer: gfp_mask=0x0, order=0, oom_score_adj=0"), ("another", b"")],
)
def test_a_first_of_a_group_that_is_not_logged_again_hides_no_later_one(
    told: Told, name: str, between: bytes
) -> None:
    """Its process ID may be that of another program by then."""
    kills = memory.Kills(told)
    line = b"Memory cgroup out of memory: Killed process %d (%b) total-vm:1kB, anon-rss:1kB"
    group = b"Tasks in /a are going to be killed due to memory.oom.group set"
    for text in (line % (7, b"x"), group, between, line % (7, name.encode())):
        kills.on_kernel_line(text)
    assert [members["name"] for _, members in told] == ["x", name]


def test_sessions_of_logind_and_of_utmp(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, utmp = tmp_path / "systemd/sessions", tmp_path / "utmp"
    monkeypatch.setattr(users, "LOGIND_SESSIONS", str(directory))
    monkeypatch.setattr(users, "UTMP", str(utmp))
    monkeypatch.setattr(sessions, "_LOGIND", str(directory.parent))
    with pytest.raises(FileNotFoundError, match="neither systemd-logind nor utmp"):
        sessions.Sessions(told)
    fields = [7, 55, b"pts/0", b"0", b"alice", b"192.0.2.1", 0, 0, 55, 1, 0, 0, 0, 0, 0]
    utmp.write_bytes(users._RECORD.pack(*fields))
    assert sessions.utmp_sessions() == {"55 pts/0": ("alice", "pts/0", "192.0.2.1")}
    directory.mkdir(parents=True)
    found = sessions.Sessions(told)
    for name, user in (("2", "bob"), ("3", "greeter")):
        kind = "user" if user == "bob" else "greeter"
        (directory / f"{name}.new").write_text(f"USER={user}\nCLASS={kind}\nTTY=tty1\n")
        os.rename(directory / f"{name}.new", directory / name)
    found._on_change(1)
    os.unlink(directory / "2")
    found._on_change(1)
    os.close(found._fd)
    bob = {"user": "bob", "terminal": "tty1"}
    assert told == [("session-opened", bob), ("session-closed", bob)]


def test_what_a_slow_reader_misses_is_counted_in_its_place() -> None:
    queue = watch.Queue(most=1000)
    for number in range(100):
        queue.put({"event": "x", "number": number})
    kept = queue.data.count(b"\n")
    received = bytearray()

    def take(count: int) -> None:
        received.extend(queue.data[:count])
        queue.take(count)

    queue.put({"event": "missed", "kind": "address"})
    take(400)
    queue.put(
        {"event": "x", "number": 100}
    )  # there is room, but those before it are to be counted first
    take(len(queue.data))
    queue.put({"event": "x", "number": 101})
    take(len(queue.data))
    lines = [json.loads(line) for line in received.splitlines()]
    assert [line["number"] for line in lines[:kept]] == list(range(kept))
    assert (lines[kept]["event"], lines[kept]["count"]) == ("dropped", 102 - kept)
    assert lines[kept]["missed"] == ["address"]
    assert lines[kept + 1 :] == [{"event": "x", "number": 101}]


def test_no_length_of_the_queue_exceeds_its_bound() -> None:
    queue = watch.Queue()
    for number in range(100_000):
        queue.put(
            watch.stamped("address-added", interface="lo", address="192.0.2.1", number=number)
        )
    assert len(queue.data) <= watch.MAX_QUEUED
    assert queue.dropped > 90_000


@pytest.mark.parametrize(
    ("kinds", "interval", "expected"),
    [
        (None, None, ["address", "mount", "pressure", "oom", "session", "freeze"]),
        (None, 60, ["address", "mount", "pressure", "oom", "session", "freeze", "usage"]),
        (["oom", "oom"], None, ["oom"]),
        (["usage"], 10, ["usage"]),
    ],
)
def test_which_events(kinds: Any, interval: Any, expected: list[str]) -> None:
    assert events._kinds(kinds, interval) == expected


def test_the_usage_of_filesystems_needs_an_interval_within_bounds() -> None:
    with pytest.raises(QgaError, match="'usage-interval' is missing"):
        events._kinds(["usage"], None)
    with pytest.raises(QgaError, match="use 10 to 86400 s"):
        events._usage(90, 9)
    with pytest.raises(QgaError, match="use 1 to 100"):
        events._usage(0, 10)
