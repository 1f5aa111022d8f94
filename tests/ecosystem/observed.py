"""A booted guest and two agents of this machine, watched by `qgactl exporter` and Prometheus.

python -m tests.ecosystem.observed    draws docs/grafana.png: what the dashboard's panels show
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.ecosystem.prometheus import Prometheus, prometheus
from tests.guest import hardware
from tests.guest.vm import Guest
from tests.host.day import Day
from tests.integration.client_agents import running
from tests.integration.test_exporter import exporter

OURS, THEIRS = "here", "qemus"
"""The names of the agents of this machine: ours, and QEMU's."""
GUESTS = {"web", OURS, THEIRS}
ARGUMENTS = ["--timeout", "20", "exporter", "--listen", "127.0.0.1:0"]
LOAD = """
for round in 1 2 3; do
    dd if=/dev/urandom of=/var/tmp/load bs=1M count=4 conv=fsync 2>/dev/null
    ping -q -c 2 -i 0.2 127.0.0.1 >/dev/null 2>&1 || :
    sleep 1
done
rm -f /var/tmp/load
"""


class Observed(NamedTuple):
    """The exporter's address, without a path, and the Prometheus that scrapes it."""

    exporter: str
    prometheus: Prometheus


@contextmanager
def observed(web: Day, folder: Path) -> Iterator[Observed]:
    for name in (OURS, THEIRS):
        (folder / name).mkdir()
    with (
        running("ours", folder / OURS) as ours,
        running("original", folder / THEIRS) as theirs,
        exporter(
            [*ARGUMENTS, "web", f"{OURS}={ours}", f"{THEIRS}={theirs}"],
            folder / "exporter.log",
            **web.env,
        ) as address,
        prometheus(address.removesuffix("/metrics"), folder) as server,
    ):
        yield Observed(address.removesuffix("/metrics"), server)


def main() -> None:
    from tests.ecosystem.panels import draw

    with Guest(hardware.disks) as guest, tempfile.TemporaryDirectory() as name:
        guest.run(["/bin/sh", "-ec", hardware.AWAIT], timeout=600)
        folder = Path(name)
        start = time.time()
        with observed(Day(guest, folder), folder) as them:
            load = threading.Thread(target=guest.run, args=(["/bin/sh", "-c", LOAD],))
            time.sleep(20)
            load.start()
            time.sleep(60)
            load.join()
            draw(them.prometheus, start + 15, time.time())


if __name__ == "__main__":
    main()
