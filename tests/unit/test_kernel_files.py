"""What the commands read off the kernel's files."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

memory: Any = import_module("qga.commands.memory")
processors: Any = import_module("qga.commands.processors")
sysfs: Any = import_module("qga.commands._sysfs")
users: Any = import_module("qga.commands.users")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("", set()), ("0", {0}), ("0-3", {0, 1, 2, 3}), ("0,2-3,7", {0, 2, 3, 7})],
)
def test_a_list_of_processors(text: str, numbers: set[int]) -> None:
    assert processors._numbers(text) == numbers


def test_processors_that_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> list[tuple[int, bool, bool]]:
        return [tuple(each.values()) for each in processors.Processors(None).guest_get_vcpus()]

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


def test_a_file_that_stays_open_says_what_is_so_now(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for content in (b"", b"1\n", b"x" * 50_000, b"2\n"):
        file.write_bytes(content)
        assert sysfs.read_kept(str(file)) == content
        assert sysfs.read_kept_word(str(file)) == content[:4096].decode().strip()


def test_sessions_of_logind_are_read_anew_when_one_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "_UTMP", str(tmp_path / "utmp"))
    monkeypatch.setattr(users, "_LOGIND_SESSIONS", str(tmp_path))
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
    monkeypatch.setattr(users, "_UTMP", str(tmp_path / "utmp"))
    monkeypatch.setattr(users, "_LOGIND_SESSIONS", str(tmp_path))
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
def test_the_sessions_of_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(users, "_UTMP", str(tmp_path / "utmp"))
    monkeypatch.setattr(users, "_LOGIND_SESSIONS", str(tmp_path / "sessions"))
    (tmp_path / "sessions").mkdir()
    log_in(tmp_path / "sessions", "1", "root", 2_000_000, f"CLASS={kind}\nSTATE=active")
    log_in(tmp_path / "sessions", "2", "gone", 2_000_000, "CLASS=user\nSTATE=closing")
    expected = [{"user": "root", "login-time": 2.0}] if CLASSES[kind] else []
    assert users.Users(None).guest_get_users() == expected


BOOT = users._RECORD.pack(2, 0, b"~", b"~~", b"reboot", b"", 0, 0, 0, 5, 0, 0, 0, 0, 0)
DEAD = users._RECORD.pack(8, 7, b"tty1", b"1", b"", b"", 0, 0, 0, 5, 0, 0, 0, 0, 0)
EVE = users._RECORD.pack(7, 7, b"tty1", b"1", b"eve", b"", 0, 0, 0, 5, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("utmp", "user"),
    [(None, "ada"), (b"", "ada"), (BOOT, "ada"), (BOOT + DEAD, "ada"), (b"x", "ada"), (EVE, "eve")],
)
def test_where_utmp_knows_nobody_logind_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, utmp: bytes | None, user: str
) -> None:
    monkeypatch.setattr(users, "_UTMP", str(tmp_path / "utmp"))
    monkeypatch.setattr(users, "_LOGIND_SESSIONS", str(tmp_path / "sessions"))
    (tmp_path / "sessions").mkdir()
    log_in(tmp_path / "sessions", "1", "ada", 2_000_000)
    if utmp is not None:
        (tmp_path / "utmp").write_bytes(utmp)
    assert [each["user"] for each in users.Users(None).guest_get_users()] == [user]


def test_a_session_file_that_is_odd_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "_UTMP", str(tmp_path / "utmp"))
    monkeypatch.setattr(users, "_LOGIND_SESSIONS", str(tmp_path / "sessions"))
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


def test_a_memory_block_that_the_kernel_is_about_to_add(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is there before its files."""
    monkeypatch.setattr(memory, "_MEMORY", str(tmp_path))
    for number in (0, 1):
        (tmp_path / f"memory{number}").mkdir()
    for name, text in (("state", "online"), ("removable", "1")):
        (tmp_path / "memory0" / name).write_text(f"{text}\n")
    (found,) = memory.Memory(None).guest_get_memory_blocks()
    assert found == {"phys-index": 0, "online": True, "can-offline": True}
