"""One playbook over two connections of Ansible to the same guest: qga.guest.qga and libvirt_qemu.

python -m tests.clients.side_by_side [--rounds N]

boots a domain of libvirt, plays the playbook in turn, and writes the times into docs/ecosystem.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.table import number_text, table
from tests.ecosystem.ansible_runs import IN_A_GUEST, PROGRAMS, Ansible, Ran
from tests.guest.image import CHECKOUT

from .domain import Domain

HERE = Path(__file__).parent
PLAYBOOK = HERE / "side_by_side.yml"
PAGE = CHECKOUT / "docs/ecosystem.md"
# What the script writes, between two comments.
PART = re.compile(r"(?<=<!-- side by side -->\n).*?(?=<!-- end of side by side -->)", re.DOTALL)

HEAD = ("seconds", "qga.guest.qga", "libvirt_qemu", "times as fast")
OURS, THEIRS = "by-qga", "by-libvirt"
SIZE = 5_000_000
TEMPLATE = "{{ ansible_facts.hostname }} runs {{ ansible_facts.kernel }}\n"

# Makes a package with a service; the arguments are its names. python3-apt reads the package.
MAKE_PACKAGES = """
cd /root
for name; do
    mkdir -p $name/DEBIAN $name/lib/systemd/system
    printf '%s\\n' "Package: $name" 'Version: 1' 'Architecture: all' 'Maintainer: nobody' \
        'Description: a service' >$name/DEBIAN/control
    printf '%s\\n' '[Service]' 'ExecStart=/bin/sleep infinity' \
        >$name/lib/systemd/system/$name.service
    dpkg-deb --build $name >/dev/null
done
"""
REMOVE_PACKAGES = """
systemctl stop "$@" || :  # not there if a task has failed
dpkg --purge "$@" >/dev/null
cd /root
for name; do rm -rf $name.copy $name.motd; done
"""


class SideBySide:
    """Ansible, and a domain with a package for each of the connections."""

    def __init__(self, domain: Domain, folder: Path) -> None:
        self.domain = domain
        self.folder = folder
        self.content = os.urandom(SIZE)
        (folder / "content").write_bytes(self.content)
        (folder / "motd.j2").write_text(TEMPLATE)
        # By them the library finds the socket of the data port, as it does that of a user's guest.
        env = {
            "XDG_CONFIG_HOME": str(domain.libvirt.folder / "config"),
            "XDG_RUNTIME_DIR": str(domain.libvirt.folder / "run"),
            "ANSIBLE_ACTION_PLUGINS": str(HERE / "action"),
            "ANSIBLE_FORKS": "1",
        }
        self.ansible = Ansible(PROGRAMS["distribution"], CHECKOUT, folder, env)
        domain.run(["/bin/sh", "-ec", MAKE_PACKAGES, "sh", OURS, THEIRS])

    def play(self, names: Sequence[str] = (OURS, THEIRS)) -> dict[str, dict[str, Ran]]:
        """The results by host and task; each task is run on one host after the other."""
        inventory = self.folder / "hosts.json"
        inventory.write_text(
            json.dumps({"all": {"hosts": {name: self._host(name) for name in names}}})
        )
        played: dict[str, dict[str, Ran]] = {name: {} for name in names}
        options = ["--extra-vars", json.dumps({"files": str(self.folder)})]
        for ran in self.ansible.play_file(PLAYBOOK, inventory, *options):
            assert ran.status == "ok", ran
            played[ran.host][ran.task] = ran
        return played

    def _host(self, name: str) -> dict[str, Any]:
        domain, uri = self.domain.name, self.domain.libvirt.uri
        if name == OURS:
            return {**IN_A_GUEST, "ansible_host": f"libvirt:{uri}/{domain}"}
        return {
            "ansible_connection": "community.libvirt.libvirt_qemu",
            "ansible_host": domain,
            "ansible_libvirt_uri": uri,
            "ansible_python_interpreter": IN_A_GUEST["ansible_python_interpreter"],
        }

    def clean(self) -> None:
        """Remove what the playbook has made."""
        self.domain.run(["/bin/sh", "-ec", REMOVE_PACKAGES, "sh", OURS, THEIRS])


def times(played: dict[str, Ran]) -> Iterator[tuple[str, float]]:
    """Seconds by what took them: tasks, and calls of the connection plugin."""
    for task, ran in played.items():
        if task == "transfers":
            yield from ran.result["seconds"].items()
        else:
            yield task, ran.seconds


def measure(rounds: int) -> str:
    """The part of the page."""
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    with Domain() as domain, tempfile.TemporaryDirectory() as folder:
        side_by_side = SideBySide(domain, Path(folder))
        for number in range(rounds):
            names = (OURS, THEIRS) if number % 2 else (THEIRS, OURS)
            for name, played in side_by_side.play(names).items():
                for what, duration in times(played):
                    seconds[what, name].append(duration)
            side_by_side.clean()
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return f"{table([HEAD, *rows(seconds)])}\nMedians of {rounds} rounds ({date}).\n"


def rows(seconds: dict[tuple[str, str], list[float]]) -> Iterator[tuple[str, ...]]:
    for what in dict.fromkeys(what for what, _ in seconds):
        ours, theirs = (median(seconds[what, name]) for name in (OURS, THEIRS))
        yield what, number_text(ours), number_text(theirs), f"{theirs / ours:.1f}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.clients.side_by_side")
    parser.add_argument("--rounds", type=int, default=4, metavar="N", help="of the playbook")
    part = measure(parser.parse_args(argv).rounds)
    PAGE.write_text(PART.sub(lambda _: part, PAGE.read_text()))
    print(part, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
