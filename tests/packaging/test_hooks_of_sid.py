"""The hooks for databases with the MySQL and the Valkey of Debian sid, in namespaces of their own.

A copy of the data of a server that is stopped by a signal is
what a snapshot of a frozen guest has.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.guest.service import wait_for
from tests.packaging.built import CHECKOUT
from tests.packaging.debian import Root, root

pytestmark = pytest.mark.timeout(400)  # the first test may have to build the root

# QGA_AGENT_PID names a process whose end releases the lock; it ends when /agent is removed.
PREPARE = """\
mkdir -p /run/mysqld /hooks
chown mysql: /run/mysqld
"""
AGENT = (
    "touch /agent; while [ -e /agent ]; do sleep 0.1; done >/dev/null 2>&1 & echo $! >/agent-pid"
)
MYSQLD = "mysqld --user=mysql --skip-networking --mysqlx=OFF"
TABLES = """\
CREATE DATABASE work; USE work;
CREATE TABLE inno (n INT PRIMARY KEY) ENGINE=InnoDB;
CREATE TABLE myisam (n INT PRIMARY KEY) ENGINE=MyISAM;
"""
COPY = "pid=$(cat /run/mysqld/pid); kill -STOP $pid; cp -a /var/lib/mysql /copy; kill -CONT $pid"
# Writes to a file which number the server has acknowledged.
WRITER = """\
n=0
while [ -e /writing ]; do
    n=$((n + 1))
    echo "INSERT INTO inno VALUES ($n); INSERT INTO myisam VALUES ($n); SELECT $n;"
    sleep 0.01
done | mysql --batch --skip-column-names --unbuffered work >/acknowledged
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Root]:
    with root("servers", apart=True) as machine:
        subprocess.run([*machine.namespace, "ip", "link", "set", "lo", "up"], check=True)
        machine.run(PREPARE)
        for name in ("mariadb", "redis"):
            machine.put(CHECKOUT / "packaging/hooks" / name, f"/hooks/{name}")
        machine.run("chmod 755 /hooks/*")
        yield machine


@pytest.fixture(scope="module")
def mysql(machine: Root) -> Root:
    start(machine, f"{MYSQLD} --pid-file=/run/mysqld/pid")
    wait_for(lambda: answers(machine, "mysqladmin ping"), "MySQL")
    machine.run(f"mysql <<'END'\n{TABLES}END")
    return machine


@pytest.fixture(scope="module")
def valkey(machine: Root) -> Root:
    machine.run("echo 'requirepass secret' >>/etc/valkey/valkey.conf")
    start(machine, "valkey-server /etc/valkey/valkey.conf --daemonize no")
    wait_for(lambda: answers(machine, "valkey-cli -a secret ping"), "Valkey")
    return machine


def start(machine: Root, command: str) -> None:
    """Start a program that goes on running; its output is in /log."""
    machine.run(f"setsid {command} </dev/null >>/log 2>&1 &")


def answers(machine: Root, command: str) -> bool:
    return machine.attempt(f"{command} >/dev/null 2>&1").returncode == 0


def hook(machine: Root, name: str, word: str) -> subprocess.CompletedProcess[str]:
    environment = "QGA_AGENT_PID=$(cat /agent-pid 2>/dev/null) QGA_FREEZE_TIMEOUT=600"
    return machine.attempt(f"{environment} /hooks/{name} {word}")


def query(machine: Root, statement: str, options: str = "") -> str:
    return machine.run(f'mysql --batch --skip-column-names {options} work -e "{statement}"').strip()


def insert(machine: Root, number: int) -> int:
    """The exit status: 124 if the server keeps it waiting."""
    statement = f"INSERT INTO inno VALUES ({number})"
    return machine.attempt(f"timeout 2 mysql work -e '{statement}'").returncode


def test_a_copy_of_mysql_has_all_that_was_acknowledged(mysql: Root) -> None:
    mysql.run("touch /writing /acknowledged")
    start(mysql, f"/bin/sh -c '{WRITER}'")
    wait_for(lambda: int(mysql.run("wc -l </acknowledged")) > 50, "MySQL to be written to")
    mysql.run(AGENT)
    frozen = hook(mysql, "mariadb", "freeze")
    assert (frozen.returncode, frozen.stdout) == (0, "")
    last = int(mysql.run("tail -n 1 /acknowledged"))
    locks = "SELECT lock_type FROM performance_schema.metadata_locks WHERE object_type = '{}'"
    assert query(mysql, locks.format("BACKUP LOCK")) == "SHARED"
    mysql.run(COPY)
    thawed = hook(mysql, "mariadb", "thaw")
    assert (thawed.returncode, thawed.stdout) == (0, "")
    wait_for(lambda: int(mysql.run("tail -n 1 /acknowledged")) > last + 1, "MySQL to go on")
    mysql.run("rm /writing /agent")

    options = "--socket=/run/mysqld/copy.sock"
    start(mysql, f"{MYSQLD} {options} --datadir=/copy --pid-file=/run/mysqld/copy.pid")
    wait_for(lambda: answers(mysql, f"mysqladmin {options} ping"), "MySQL on the copy")
    for table in ("inno", "myisam"):
        found = query(mysql, f"SELECT max(n), count(*) FROM {table}", options).split()
        assert [int(number) for number in found] in ([last, last], [last + 1, last + 1])
    checked = query(mysql, "CHECK TABLE inno, myisam EXTENDED", options)
    assert [line.split("\t")[2:] for line in checked.splitlines()] == [["status", "OK"]] * 2
    assert mysql.run("grep -c 'marked as crashed' /log || true").strip() == "0"
    mysql.run(f"mysqladmin {options} shutdown")


def test_mysql_is_locked_until_the_agent_ends(mysql: Root) -> None:
    mysql.run(AGENT)
    assert hook(mysql, "mariadb", "freeze").returncode == 0
    assert insert(mysql, 1_000_001) == 124
    mysql.run("rm /agent")
    wait_for(lambda: insert(mysql, 1_000_002) == 0, "the lock to be released")
    thawed = hook(mysql, "mariadb", "thaw")
    assert (thawed.returncode, "the agent ended" in thawed.stdout) == (1, True), thawed.stdout


def test_a_mysql_that_refuses_the_login_fails_the_freeze(mysql: Root) -> None:
    mysql.run("printf '[client]\\nuser=nobody\\npassword=wrong\\n' >/root/.my.cnf")
    try:
        frozen = hook(mysql, "mariadb", "freeze")
    finally:
        mysql.run("rm /root/.my.cnf")
    assert (frozen.returncode, "Access denied" in frozen.stdout) == (1, True), frozen.stdout


def test_valkey_has_saved(valkey: Root) -> None:
    valkey.run("valkey-cli --no-auth-warning -a secret set key value")
    unsaved = "valkey-cli --no-auth-warning -a secret info persistence | grep rdb_changes_since"
    assert ":1" in valkey.run(unsaved)
    frozen = hook(valkey, "redis", "freeze")
    assert (frozen.returncode, frozen.stdout) == (0, "")
    assert ":0" in valkey.run(unsaved)
    valkey.run("mkdir /saved; cp /var/lib/valkey/dump.rdb /saved")
    start(valkey, "valkey-server --port 0 --unixsocket /saved/socket --dir /saved")
    wait_for(lambda: answers(valkey, "valkey-cli -s /saved/socket ping"), "Valkey on the copy")
    assert valkey.run("valkey-cli -s /saved/socket get key").strip() == "value"
    assert hook(valkey, "redis", "thaw").returncode == 0


def test_a_wrong_password_fails_the_freeze(valkey: Root) -> None:
    valkey.run("sed -i 's/^requirepass .*/requirepass wrong/' /etc/valkey/valkey.conf")
    frozen = hook(valkey, "redis", "freeze")
    assert frozen.returncode == 1
    assert frozen.stdout.startswith("Redis (/etc/valkey/valkey.conf): ")
    assert "WRONGPASS" in frozen.stdout


def test_servers_that_are_not_running_are_skipped(mysql: Root, valkey: Root) -> None:
    mysql.run("mysqladmin shutdown; valkey-cli --no-auth-warning -a secret shutdown nosave")
    for name in ("mariadb", "redis"):
        frozen = hook(mysql, name, "freeze")
        assert (name, frozen.returncode, frozen.stdout) == (name, 0, "")
