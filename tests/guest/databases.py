"""A guest with databases that are written to, and what is left of them in a copy of its disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from tests.integration.qgactl_process import SLOW, qgactl

from . import image
from .building import CHECKOUT, RootImage, bootstrap, cached, key_of, run
from .service import wait_for
from .vm import Guest

PACKAGES = ("mariadb-server", "postgresql", "redis-server")
SIZE = "2G"
HOOKS = "/usr/share/qga/hooks"
HOOK = "/etc/qemu/fsfreeze-hook"
NAMES = ("mariadb", "postgresql", "redis")

# One writer for each server: a transaction, then its number in a file that is not on the disk.
# The rows of a transaction are two, so that half of one would show.
WRITER = r"""
import itertools, subprocess, sys, time

kind = sys.argv[1]
commands = {
    "mariadb": ["mariadb", "--batch", "--skip-column-names", "--unbuffered", "work"],
    "postgresql": ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups",
                   "psql", "-qAtX", "work"],
}
transactions = {
    "mariadb": "START TRANSACTION; INSERT INTO inno VALUES ({0}, 'a'), ({0}, 'b'); COMMIT; "
               "INSERT INTO aria VALUES ({0}, 'a'); INSERT INTO myisam VALUES ({0}, 'a'); "
               "SELECT {0};",
    "postgresql": "BEGIN; INSERT INTO pairs VALUES ({0}, 'a'); "
                  "INSERT INTO pairs VALUES ({0}, 'b'); COMMIT; SELECT {0};",
}
client = subprocess.Popen(commands[kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/")
for number in itertools.count(1):
    client.stdin.write((transactions[kind].format(number) + "\n").encode())
    client.stdin.flush()
    assert int(client.stdout.readline()) == number
    with open(f"/run/acknowledged-{kind}", "w") as file:
        file.write(str(number))
    time.sleep(0.05)  # others need the emulated processors, too
"""
# The last hook at a freeze, and the first at a thaw.
NOTES = """\
#!/bin/sh
for kind in mariadb postgresql; do cp /run/acknowledged-$kind /run/$1-$kind; done
"""
TABLES = {
    "mariadb": (
        "CREATE DATABASE work; USE work;"
        "CREATE TABLE inno (n INT, half CHAR(1), PRIMARY KEY (n, half)) ENGINE=InnoDB;"
        "CREATE TABLE aria (n INT PRIMARY KEY, half CHAR(1)) ENGINE=Aria TRANSACTIONAL=0;"
        "CREATE TABLE myisam (n INT PRIMARY KEY, half CHAR(1)) ENGINE=MyISAM;"
    ),
    "postgresql": "CREATE TABLE pairs (n INT, half CHAR(1), PRIMARY KEY (n, half))",
}


class Rows(NamedTuple):
    """What a table holds: the largest number, how many numbers, how many rows."""

    last: int
    numbers: int
    rows: int


def database_image() -> RootImage:
    """The test guest's root with MariaDB, PostgreSQL and Redis, built if it is not in the cache."""
    return cached("databases", key_of(image.recipe_key(), PACKAGES, SIZE), make_root, SIZE)


def make_root(root: Path) -> None:
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in image.EXCLUDED]
    run(bootstrap(root, image.SUITE, (*image.PACKAGES, *PACKAGES), *options))
    image.configure(root)


def copied(disk: Path) -> RootImage:
    """A copy of the guest's disk, to be booted as the guest was."""
    return database_image()._replace(disk=disk)


def install_hooks(guest: Guest) -> None:
    for name in NAMES:
        text = (CHECKOUT / "packaging/hooks" / name).read_text()
        guest.write_file(f"{HOOKS}/{name}", text, mode="755")
    guest.write_file(f"{HOOK}.d/zz-notes", NOTES, mode="755")
    # The hook of Debian's package ignores failures of the scripts that it runs.
    enable = f"rm -f {HOOK}; mkdir -p {HOOK}.d; ln -sf {HOOKS}/* {HOOK}.d/"
    guest.run(["/bin/sh", "-ec", enable])


def wait_until_up(guest: Guest) -> None:
    """Wait until all three servers answer."""
    script = (
        "mariadb -e 'SELECT 1' && cd / && runuser -u postgres -- psql -c 'SELECT 1' && "
        "redis-cli ping"
    )
    argv = ["/bin/sh", "-c", f"({script}) >/dev/null 2>&1"]
    wait_for(
        lambda: guest.run(argv, check=False, timeout=300).status == 0,
        "the databases to answer",
        timeout=600,
    )


def start_load(guest: Guest) -> None:
    """Create the tables, and write to them until the guest ends."""
    guest.run(["mariadb", "-e", TABLES["mariadb"]])
    psql(guest, "CREATE DATABASE work", "postgres")
    psql(guest, TABLES["postgresql"])
    psql(guest, "CREATE EXTENSION amcheck")
    guest.write_file("/run/writer.py", WRITER)
    for kind in TABLES:
        argv = ["systemd-run", f"--unit=writer-{kind}", "python3", "/run/writer.py", kind]
        guest.run(argv)
    for kind in TABLES:
        wait_for(
            lambda kind=kind: acknowledged(guest, kind) > 20,  # type: ignore[misc]
            f"{kind} to be written to",
        )


def acknowledged(guest: Guest, kind: str, moment: str = "acknowledged") -> int:
    """The number of the last transaction that the server has acknowledged.

    moment: `freeze` and `thaw` are those when the last hook was called so, and the first one.
    """
    shown = guest.run(["cat", f"/run/{moment}-{kind}"], check=False).stdout
    return int(shown or 0)


def psql(guest: Guest, statement: str, database: str = "work") -> str:
    argv = ["runuser", "-u", "postgres", "--", "psql", "-qAtX", "-F", " ", database]
    return guest.run(["/usr/bin/env", "-C", "/", *argv], stdin=statement).stdout


def mariadb(guest: Guest, statement: str) -> str:
    return guest.run(["mariadb", "-BN", "work"], stdin=statement).stdout


def rows(guest: Guest, table: str) -> Rows:
    statement = f"SELECT max(n), count(DISTINCT n), count(*) FROM {table};"
    shown = psql(guest, statement) if table == "pairs" else mariadb(guest, statement)
    return Rows(*map(int, shown.split()))


def log_of(guest: Guest, unit: str) -> str:
    return guest.run(["journalctl", "--no-pager", "--boot", f"--unit={unit}"]).stdout


def monitor(folder: Path) -> list[str]:
    """QEMU's options for one more QMP socket, that of the tests being in use."""
    return ["-qmp", f"unix:{folder}/monitor,server=on,wait=off"]


def snapshot(address: str, directory: Path, *options: str) -> dict[str, Any]:
    """What `qgactl snapshot` tells; the files are in the directory."""
    words = [*SLOW, "--json", "snapshot", str(directory), *options]
    status, out, err = qgactl(*words, address=address)
    assert status == 0, err
    record: dict[str, Any] = json.loads(out)
    assert json.loads((directory / "snapshot.json").read_text()) == record
    return record
