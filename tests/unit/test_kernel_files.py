"""What the commands read off the kernel's files."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qga import QgaError
from tests.differences import differs

block: Any = import_module("qga.commands._block")
clock: Any = import_module("qga.commands.time")
disks: Any = import_module("qga.commands.disks")
filesystems: Any = import_module("qga.commands.filesystems")
memory: Any = import_module("qga.commands.memory")
mounts: Any = import_module("qga.commands._mounts")
network: Any = import_module("qga.commands.network")
processors: Any = import_module("qga.commands.processors")
sysfs: Any = import_module("qga.commands._sysfs")
users: Any = import_module("qga.commands.users")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("", set()), ("0", {0}), ("0-3", {0, 1, 2, 3}), ("0,2-3,7", {0, 2, 3, 7})],
)
def test_a_list_of_processors(text: str, numbers: set[int]) -> None:
    assert processors._numbers(text, "present") == numbers


def test_processors_of_a_kernel_that_does_not_list_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sandbox may have the directories alone, which is all that QEMU's agent reads."""
    monkeypatch.setattr(processors, "_CPUS", str(tmp_path))
    for number, online in enumerate(("", "0\n", "1\n")):
        (tmp_path / f"cpu{number}").mkdir()
        if online:
            (tmp_path / f"cpu{number}/online").write_text(online)
    listed = processors.Processors(None).guest_get_vcpus()
    told = sorted(tuple(each.values()) for each in listed)
    assert told == [(0, True, False), (1, False, True), (2, True, True)]


def test_processors_that_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> list[tuple[int, bool, bool]]:
        listed = processors.Processors(None).guest_get_vcpus()
        return sorted(tuple(each.values()) for each in listed)

    def plug_in(number: int) -> None:
        (tmp_path / f"cpu{number}").mkdir()
        (tmp_path / f"cpu{number}/online").touch()

    monkeypatch.setattr(processors, "_CPUS", str(tmp_path))
    processors._known.cache_clear()
    (tmp_path / "cpu0").mkdir()
    (tmp_path / "cpufreq").mkdir()
    plug_in(1)
    (tmp_path / "present").write_text("0-1\n")
    (tmp_path / "online").write_text("0-1\n")
    assert told() == [(0, True, False), (1, True, True)]
    (tmp_path / "online").write_text("0\n")
    assert told() == [(0, True, False), (1, False, True)]
    (tmp_path / "present").write_text("0-2\n")
    assert len(told()) == 2  # its folder comes later
    plug_in(2)
    assert told()[2] == (2, False, True)
    (tmp_path / "present").write_text("0\n")
    (tmp_path / "cpu1/online").unlink()
    (tmp_path / "cpu1").rmdir()
    assert [number for number, *_ in told()] == [0, 2]
    processors._known.cache_clear()


def test_a_file_that_stays_open_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for content in (b"", b"1\n", b"x" * 50_000, b"2\n"):
        file.write_bytes(content)
        assert sysfs.read_kept(str(file)) == content
        assert sysfs.read_kept_word(str(file)) == content[:4096].decode().strip()


def test_sessions_of_logind_are_read_again_when_one_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "UTMP", str(tmp_path / "utmp"))
    monkeypatch.setattr(users, "LOGIND_SESSIONS", str(tmp_path))
    logins = users.Users(None).guest_get_users
    assert logins() == []
    log_in(tmp_path, "1", "ada", 2_000_000)
    assert logins() == [{"user": "ada", "login-time": 2.0}]
    log_in(tmp_path, "2", "eve", 1_500_000)
    assert logins() == [
        {"user": "eve", "login-time": 1.5},
        {"user": "ada", "login-time": 2.0},
    ]


def test_sessions_of_logind_are_not_read_again_when_none_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "UTMP", str(tmp_path / "utmp"))
    monkeypatch.setattr(users, "LOGIND_SESSIONS", str(tmp_path))
    log_in(tmp_path, "1", "ada", 2_000_000)
    os.utime(tmp_path, ns=(0, 10**18))  # long ago
    assert users.Users(None).guest_get_users() == [{"user": "ada", "login-time": 2.0}]
    monkeypatch.setattr(users.os, "listdir", None)
    assert users.Users(None).guest_get_users() == [{"user": "ada", "login-time": 2.0}]


CLASSES = {  # of sd_session_get_class(3), and one that may come
    **dict.fromkeys(["user", "user-early", "user-light", "user-early-light", "user-later"], True),
    **dict.fromkeys(["user-incomplete", "greeter", "lock-screen", "background"], False),
    **dict.fromkeys(["background-light", "manager", "manager-early", "none", ""], False),
}


@pytest.mark.parametrize("kind", CLASSES)
def test_sessions_of_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(users, "UTMP", str(tmp_path / "utmp"))
    monkeypatch.setattr(users, "LOGIND_SESSIONS", str(tmp_path / "sessions"))
    (tmp_path / "sessions").mkdir()
    log_in(tmp_path / "sessions", "1", "root", 2_000_000, f"CLASS={kind}\nSTATE=active")
    log_in(tmp_path / "sessions", "2", "gone", 2_000_000, "CLASS=user\nSTATE=closing")
    expected = [{"user": "root", "login-time": 2.0}] if CLASSES[kind] else []
    assert users.Users(None).guest_get_users() == expected


# By <bits/utmp.h> and <bits/wordsize.h> of glibc 2.36 and 2.43 in Debian's libc6-dev-*-cross. Files
# of the longer layout were read by `who` of arm64 and of s390x.
UTMP_SIZES = {
    **dict.fromkeys(["x86_64", "ppc64le", "ppc64", "mips64", "riscv64", "sparc64"], 384),
    **dict.fromkeys(["aarch64", "alpha", "loongarch64", "s390x"], 400),
}


@pytest.mark.parametrize("machine", UTMP_SIZES)
def test_the_size_of_a_record_in_utmp(machine: str) -> None:
    assert users._layout(machine, is_64_bit=True).size == UTMP_SIZES[machine]
    assert users._layout(machine, is_64_bit=False).size == 384  # such as armhf on an arm64 kernel


@pytest.mark.parametrize("machine", UTMP_SIZES)
def test_users_on_other_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    layout = users._layout(machine, is_64_bit=True)
    logins = [("ada", 1_790_000_000, 500_000), ("eve", 1_790_003_600, 0), ("ada", 1, 0)]
    records = (
        layout.pack(7, 1, b"pts/0", b"ts", user.encode(), b"host", 0, 0, 0, *time, 0, 0, 0, 0)
        for user, *time in logins
    )
    (tmp_path / "utmp").write_bytes(b"".join(records))
    monkeypatch.setattr(users, "UTMP", str(tmp_path / "utmp"))
    monkeypatch.setattr(users, "_RECORD", layout)
    assert users.Users(None).guest_get_users() == [
        {"user": "ada", "login-time": 1},
        {"user": "eve", "login-time": 1_790_003_600},
    ]


@differs("long-user-name")
def test_a_user_name_that_fills_its_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = b"a" * 32
    record = users._RECORD.pack(7, 1, b"pts/0", b"ts", name, b"host", 0, 0, 0, 2, 0, 0, 0, 0, 0)
    (tmp_path / "utmp").write_bytes(record)
    monkeypatch.setattr(users, "UTMP", str(tmp_path / "utmp"))
    assert users.Users(None).guest_get_users() == [{"user": name.decode(), "login-time": 2}]


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler and libc6-dev")
def test_the_layout_of_utmp_on_this_machine(tmp_path: Path) -> None:
    """A record made by the C library, read by us."""
    program, source = tmp_path / "record", tmp_path / "record.c"
    source.write_text(
        """
        #include <stdio.h>
        #include <utmp.h>
        int main(void) {
            struct utmp record = {.ut_type = USER_PROCESS, .ut_user = "ada", .ut_host = "host",
                                  .ut_session = -1, .ut_addr_v6 = {-1, -1, -1, -1}};
            record.ut_tv.tv_sec = 1790000000;
            record.ut_tv.tv_usec = 250000;
            return fwrite(&record, sizeof record, 1, stdout) != 1;
        }
        """
    )
    subprocess.run(["cc", "-o", program, source], check=True)
    record = subprocess.run([program], stdout=subprocess.PIPE, check=True).stdout
    kind, _pid, _line, _id, user, _host, _, _, _session, *time = users._RECORD.unpack(record)
    assert (kind, user.rstrip(b"\0"), time[:2]) == (7, b"ada", [1_790_000_000, 250_000])


BOOT = users._RECORD.pack(2, 0, b"~", b"~~", b"reboot", b"", 0, 0, 0, 5, 0, 0, 0, 0, 0)
DEAD = users._RECORD.pack(8, 7, b"tty1", b"1", b"", b"", 0, 0, 0, 5, 0, 0, 0, 0, 0)
EVE = users._RECORD.pack(7, 7, b"tty1", b"1", b"eve", b"", 0, 0, 0, 5, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("utmp", "user"),
    [(None, "ada"), (b"", "ada"), (BOOT, "ada"), (BOOT + DEAD, "ada"), (b"x", "ada"), (EVE, "eve")],
)
def test_logind_is_used_if_utmp_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, utmp: bytes | None, user: str
) -> None:
    monkeypatch.setattr(users, "UTMP", str(tmp_path / "utmp"))
    monkeypatch.setattr(users, "LOGIND_SESSIONS", str(tmp_path / "sessions"))
    (tmp_path / "sessions").mkdir()
    log_in(tmp_path / "sessions", "1", "ada", 2_000_000)
    if utmp is not None:
        (tmp_path / "utmp").write_bytes(utmp)
    assert [each["user"] for each in users.Users(None).guest_get_users()] == [user]


def test_an_invalid_session_file_does_not_hide_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "UTMP", str(tmp_path / "utmp"))
    monkeypatch.setattr(users, "LOGIND_SESSIONS", str(tmp_path / "sessions"))
    (tmp_path / "sessions").mkdir()
    (tmp_path / "sessions/0").mkdir()
    (tmp_path / "sessions/1").write_bytes(b"\xff\n=\nREALTIME=\nCLASS=user\n")
    (tmp_path / "sessions/2").symlink_to("/nowhere")
    log_in(tmp_path / "sessions", "3", "ada", 2_000_000, "CLASS=user\nREALTIME=soon")
    assert users.Users(None).guest_get_users() == [{"user": "ada", "login-time": 0.0}]


def log_in(
    sessions: Path, number: str, user: str, microseconds: int, more: str = "CLASS=user"
) -> None:
    """As logind does it: a new file takes the place of the old."""
    new = sessions / f".#{number}.ref"
    new.write_text(f"USER={user}\nREALTIME={microseconds}\n{more}\n")
    new.replace(sessions / number)


@pytest.mark.parametrize("there", [0, 1])
def test_a_memory_block_that_the_kernel_is_about_to_add(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: int
) -> None:
    """Its folder is there before its files."""
    monkeypatch.setattr(memory, "_MEMORY", str(tmp_path))
    for number in (0, 1):
        (tmp_path / f"memory{number}").mkdir()
    for name, text in (("state", "online"), ("removable", "1")):
        (tmp_path / f"memory{there}" / name).write_text(f"{text}\n")
    (found,) = memory.Memory(None).guest_get_memory_blocks()
    assert found == {"phys-index": there, "online": True, "can-offline": True}


@pytest.mark.parametrize("attribute", ["state", "removable", "valid_zones"])
def test_a_memory_block_that_is_being_removed(
    attribute: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are gone, and those that are open cannot be read any longer."""

    def read(path: str, directory: int) -> str:
        if path == f"memory1/{attribute}":
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        word: str = sysfs.read_word(path, directory)
        return word

    monkeypatch.setattr(memory, "_MEMORY", str(tmp_path))
    monkeypatch.setattr(memory, "read_word", read)
    for number in (0, 1, 2):
        make_block(tmp_path, number)
    monkeypatch.setattr(memory, "_kernel_release", lambda: (4, 18))
    listed = memory.Memory(None).guest_get_memory_blocks()
    assert {0, 2} <= {block["phys-index"] for block in listed if block["can-offline"]}


ODD_LINES = [
    b"",
    b"x",
    b"\xff \xff \xff",
    b"8 1 sdb x y z 4",
    b"cpux 1 2 3 4",
    b"cpu1 1",
    b"a b " * 9,
]


@differs("kernel-lines")
@pytest.mark.parametrize("odd", ODD_LINES)
def test_an_odd_line_does_not_cost_the_others(odd: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/stat": b"cpu  2 2 2 2\n%s\ncpu2 1 2 3 4\n",
        "/proc/diskstats": b"8 0 sda 1 2 3 4 5 6 7 8 9 10 11\n%s\n8 2 a\xff 1 2 3 4\n",
        "/proc/net/route": b"Iface\n%s\neth0 0002000A 0102000A 3 0 0 1 00FFFFFF 0 0 0 new\n"
        b"eth1 1234567890 0 3 0 0 1 0 0 0 0\n",
        "/proc/net/ipv6_route": b"%s\n%s 40 %s 00 %s 100 1 0 1 lo\n"
        % (b"%s", b"0" * 32, b"0" * 32, b"0" * 32),
    }
    for module, name in ((processors, "read_kept"), (disks, "read_kept"), (network, "read_bytes")):
        monkeypatch.setattr(module, name, lambda path: files[path] % odd)
    assert [each["cpu"] for each in processors.Processors(None).guest_get_cpustats()] == [2]
    counted = disks.Disks(None).guest_get_diskstats()
    assert [each["name"] for each in counted] == ["sda", "a\ufffd"]
    routes = network.Network(None).guest_network_get_route()
    assert [(each["iface"], each["version"]) for each in routes] == [("eth0", 4), ("lo", 6)]


def make_block(memory_directory: Path, number: int, zones: str | None = "Normal") -> None:
    block = memory_directory / f"memory{number}"
    block.mkdir()
    (block / "state").write_text("online\n")
    (block / "removable").write_text("1\n")
    if zones is not None:
        (block / "valid_zones").write_text(f"{zones}\n")


@differs("no-memory-blocks")
def test_without_memory_blocks(tmp_path: Path) -> None:
    traits = memory.Memory.guest_get_memory_blocks.__qga_command__
    assert traits.available == "/sys/devices/system/memory/block_size_bytes"
    traits = traits._replace(available=str(tmp_path / "block_size_bytes"))
    assert not traits.are_met
    (tmp_path / "block_size_bytes").write_text("8000000\n")
    assert traits.are_met


def test_a_memory_block_that_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one of a PC, for example, for it has holes."""
    monkeypatch.setattr(memory, "_MEMORY", str(tmp_path))
    for number, zones in ((0, "none"), (1, "DMA32"), (2, "Normal Movable"), (3, None)):
        make_block(tmp_path, number, zones)
    listed = memory.Memory(None).guest_get_memory_blocks()
    assert {block["phys-index"]: block["can-offline"] for block in listed} == {
        0: False,
        1: True,
        2: True,
        3: True,
    }


def test_lists_have_the_kernels_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with QEMU's agent. A program of the host may take the first one that it finds."""
    monkeypatch.setattr(memory, "_MEMORY", str(tmp_path))
    monkeypatch.setattr(processors, "_CPUS", str(tmp_path))
    order = [7, 2, 11, 0]
    for number in order:
        make_block(tmp_path, number)
        (tmp_path / f"cpu{number}").mkdir()
    for name in ("present", "online"):
        (tmp_path / name).write_text("0,2,7,11\n")
    names = ["uevent", *(f"{kind}{number}" for number in order for kind in ("cpu", "memory"))]
    monkeypatch.setattr(sysfs.os, "listdir", lambda directory: names)
    processors._known.cache_clear()
    blocks = memory.Memory(None).guest_get_memory_blocks()
    cpus = processors.Processors(None).guest_get_vcpus()
    processors._known.cache_clear()
    assert [block["phys-index"] for block in blocks] == order
    assert [cpu["logical-id"] for cpu in cpus] == order


def test_disks_have_the_original_agents_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reverse of the kernel's: that of the disks, each after its own partitions."""
    kernels = {
        "/sys/block": ["vdb", "sda", "dm-0"],
        "/sys/class/block": ["dm-0", "sda", "sda1", "vdb", "vdb1", "vdb3"],
        "/sys/block/vdb": ["size", "vdb3", "queue", "vdb1", "vdb-no-partition"],
        "/sys/block/sda": ["sda1"],
    }
    monkeypatch.setattr(disks.os, "listdir", kernels.__getitem__)
    assert disks._names() == ["dm-0", "sda1", "sda", "vdb1", "vdb3", "vdb"]


def test_a_filesystem_whose_disk_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is still mounted, but /sys has nothing of its disk."""
    mount = mounts.Mount((254, 4095), [str(tmp_path)], "ext4", "/dev/vdx")
    monkeypatch.setattr(filesystems, "block_mounts", lambda: [mount])
    (listed,) = filesystems.Filesystems(None).guest_get_fsinfo(may_wait=True)
    assert listed["total-bytes"] > 0
    assert (listed["name"], listed["disk"]) == ("254:4095", [])
    assert (listed["mountpoint"], listed["type"]) == (str(tmp_path), "ext4")


def test_a_disk_that_goes_while_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its directory in /sys is a dangling link by then."""
    (tmp_path / "vdx").mkdir()
    (tmp_path / "vdx/size").write_text("8\n")
    (tmp_path / "vdx/dev").write_text("254:4095\n")
    for module, name in ((disks, "_SYS_DISKS"), (disks, "SYS_BLOCK"), (block, "SYS_BLOCK")):
        monkeypatch.setattr(module, name, str(tmp_path))
    monkeypatch.setattr(filesystems, "device_name", lambda device: "vdx")
    mount = mounts.Mount((254, 4095), [str(tmp_path)], "ext4", "/dev/vdx")

    def unplugged(*_: object) -> str:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(block.os, "readlink", unplugged)
    assert disks.Disks(None).guest_get_disks() == []
    assert filesystems._filesystem(mount)["disk"] == []


def test_the_hardware_clock_that_a_mainframe_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_RTC", "/nowhere")
    for machine, expected in (("s390x", "ok"), ("x86_64", "warning"), ("aarch64", "warning")):
        monkeypatch.setattr(clock.os, "uname", lambda name=machine: SimpleNamespace(machine=name))
        found = [each for each in clock.Time.do_diagnose(None) if "hardware clock" in each.text]
        assert [each.status for each in found] == [expected]


@differs("user-name-with-nul")
@pytest.mark.parametrize("name", ["a:b", "a\nb", "a\0b"])
def test_a_name_that_chpasswd_would_misread(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def run(*_: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(users, "run", run)
    caller: Any = SimpleNamespace(policy=SimpleNamespace(check_account=lambda name: None))
    with pytest.raises(QgaError, match=r"^forbidden characters in username$"):
        users.Users(None).guest_set_user_password(name, "YQ==", False, caller=caller)
