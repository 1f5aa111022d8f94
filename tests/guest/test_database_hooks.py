"""The hooks for databases: what a second guest finds on a copy of a disk that is written to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import databases
from .agent_socket import AgentError, AgentSocket
from .building import run
from .databases import TABLES, acknowledged, log_of, mariadb, psql, rows
from .service import by_hand, main_pid, stopped, wait_for
from .vm import Guest

pytestmark = pytest.mark.timeout(900)

OPTIONS = (f"--fsfreeze-hook={databases.HOOK}",)
IMPROPER = "marked as crashed"


@pytest.fixture(scope="module")
def loaded() -> Iterator[Guest]:
    """A guest with databases that are written to, whose agent has the hooks."""
    with Guest(databases.monitor, image=databases.database_image) as guest:
        databases.install_hooks(guest)
        databases.wait_until_up(guest)
        databases.start_load(guest)
        with stopped(guest):
            yield guest


@pytest.fixture
def agent(loaded: Guest) -> Iterator[AgentSocket]:
    with by_hand(loaded, *OPTIONS), loaded.connect(timeout=200) as agent:
        yield agent
        agent.execute("guest-fsfreeze-thaw")


def needs_replay(disk: Path) -> bool:
    """Whether the journal of the copied filesystem holds what the filesystem lacks."""
    return "needs_recovery" in run(["dumpe2fs", "-h", str(disk)])


def wait_until_written_again(guest: Guest) -> None:
    before = {kind: acknowledged(guest, kind) for kind in TABLES}
    for kind in TABLES:
        wait_for(
            lambda kind=kind: acknowledged(guest, kind) > before[kind],  # type: ignore[misc]
            f"{kind} to be written to",
        )


def moments(guest: Guest) -> dict[str, range]:
    """Which numbers may be the last in a copy, by the notes of the hooks.

    A transaction that was carried out when the freeze came may be there without its reply.
    """
    found = {
        kind: range(acknowledged(guest, kind, "freeze"), acknowledged(guest, kind, "thaw") + 2)
        for kind in TABLES
    }
    assert len(found["mariadb"]) == 2  # its hook holds a lock from the one to the other
    return found


def test_a_copy_has_all_that_was_acknowledged(loaded: Guest, tmp_path: Path) -> None:
    with by_hand(loaded, *OPTIONS):
        address = f"unix:{loaded.channel_path()}"
        record = databases.snapshot(address, tmp_path / "copy", "--disk=root", "--format=raw")
    check_record(record, "root")
    last = moments(loaded)
    wait_until_written_again(loaded)
    disk = tmp_path / "copy/root.raw"
    assert needs_replay(disk) is False
    with Guest(image=lambda: databases.copied(disk)) as restored:
        databases.wait_until_up(restored)
        check_databases(restored, last)


def check_record(record: dict[str, Any], disk: str) -> None:
    freeze = record["freeze"]
    print(f"frozen for {freeze['seconds']} s after {freeze['before']} s, of {record['seconds']} s")
    assert record["consistent"] is True
    assert [each["name"] for each in record["disks"]] == [disk]
    assert {"mountpoint": "/", "type": "ext4"} in freeze["filesystems"]
    assert freeze["left-out"] == []
    names = [*databases.NAMES, "zz-notes"]
    assert freeze["hooks"] == [f"{databases.HOOK}.d/{name}" for name in names]


def check_databases(guest: Guest, last: dict[str, range]) -> None:
    for kind, table in (
        ("mariadb", "inno"),
        ("mariadb", "aria"),
        ("mariadb", "myisam"),
        ("postgresql", "pairs"),
    ):
        check_rows(guest, table, last[kind])
    check_tables(guest)
    # The server notices when it opens a table, as above, and repairs it.
    assert IMPROPER not in log_of(guest, "mariadb")


def check_rows(guest: Guest, table: str, last: range) -> None:
    """All that was acknowledged is there, nothing is half, and nothing comes later."""
    found = rows(guest, table)
    halves = 1 if table in ("aria", "myisam") else 2
    assert found.last in last
    assert (found.numbers, found.rows) == (found.last, halves * found.last)


def check_tables(guest: Guest) -> None:
    shown = mariadb(guest, "CHECK TABLE inno, aria, myisam EXTENDED;")
    assert [line.split("\t")[2:] for line in shown.splitlines()] == [["status", "OK"]] * 3
    assert psql(guest, "SELECT bt_index_check('pairs_pkey', true)") == "\n"


def test_a_copy_without_the_hooks(loaded: Guest, tmp_path: Path) -> None:
    """The control: what the hooks and the freeze are for."""
    options = ["--disk=root", "--format=raw", "--crash-consistent"]
    record = databases.snapshot(
        f"unix:{loaded.channel_path()}", tmp_path / "copy", "--timeout=1", *options
    )
    assert (record["consistent"], "freeze" in record) == (False, False)
    disk = tmp_path / "copy/root.raw"
    assert needs_replay(disk) is True
    with Guest(image=lambda: databases.copied(disk)) as restored:
        databases.wait_until_up(restored)
        mariadb(restored, "SELECT count(*) FROM myisam;")
        assert IMPROPER in log_of(restored, "mariadb")


def test_redis_has_saved(loaded: Guest, agent: AgentSocket) -> None:
    loaded.run(["redis-cli", "save"])
    loaded.run(["redis-cli", "set", "key", "value"])
    script = "redis-cli info persistence | grep rdb_changes_since_last_save"
    assert ":1" in loaded.run(["/bin/sh", "-c", script]).stdout
    agent.execute("guest-fsfreeze-freeze")
    assert ":0" in loaded.run(["/bin/sh", "-c", script]).stdout


def test_a_server_that_is_not_running_is_skipped(loaded: Guest, agent: AgentSocket) -> None:
    loaded.run(["systemctl", "stop", "redis-server"])
    try:
        assert agent.execute("guest-fsfreeze-freeze") >= 1
        agent.execute("guest-fsfreeze-thaw")
    finally:
        loaded.run(["systemctl", "start", "redis-server"])


def test_a_lock_that_is_not_given_fails_the_freeze(loaded: Guest, agent: AgentSocket) -> None:
    """A statement of somebody else holds the tables for longer than the hook waits."""
    statement = "LOCK TABLES inno WRITE; SELECT SLEEP(120);"
    loaded.run(["systemd-run", "--unit=holder", "--collect", "mariadb", "work", "-e", statement])
    try:
        wait_for(lambda: "User sleep" in mariadb(loaded, "SHOW PROCESSLIST"), "the tables' lock")
        with pytest.raises(AgentError, match=r"MariaDB: .*Lock wait timeout exceeded"):
            agent.execute("guest-fsfreeze-freeze")
        assert agent.execute("guest-fsfreeze-status") == "thawed"
    finally:
        loaded.run(["systemctl", "stop", "holder"])
    wait_until_written_again(loaded)


def test_a_lock_does_not_outlive_the_agent(loaded: Guest) -> None:
    """The next agent thaws, and reports that the lock was lost before."""
    # As in the unit of the packages: what the agent has started outlives it.
    with by_hand(loaded, *OPTIONS, limits=["KillMode=process"]) as unit:
        with loaded.connect(timeout=200) as agent:
            agent.execute("guest-fsfreeze-freeze")
        loaded.run(["kill", "-KILL", str(main_pid(loaded, unit))])
        wait_for(lambda: lock_is_lost(loaded), "the lock to be released")
    with by_hand(loaded, *OPTIONS), loaded.connect(timeout=200) as agent:
        with pytest.raises(AgentError, match="MariaDB: the agent ended, so the lock was released"):
            agent.execute("guest-fsfreeze-thaw")
        assert agent.execute("guest-fsfreeze-status") == "thawed"
    wait_until_written_again(loaded)


def lock_is_lost(guest: Guest) -> bool:
    return guest.run(["test", "-e", "/run/qga-hooks/mariadb"], check=False).status != 0


def test_a_hanging_server_fails_the_freeze(loaded: Guest, agent: AgentSocket) -> None:
    """redis stopped by a signal answers nothing."""
    loaded.run(["pkill", "-STOP", "redis-server"])
    try:
        with pytest.raises(AgentError, match=r"Redis .*no answer after 10 s"):
            agent.execute("guest-fsfreeze-freeze")
        assert agent.execute("guest-fsfreeze-status") == "thawed"
    finally:
        loaded.run(["pkill", "-CONT", "redis-server"])
    wait_until_written_again(loaded)
