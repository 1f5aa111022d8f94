"""An agent whose locale is not UTF-8 finds files by their UTF-8 names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.locales import GERMAN, make_german

from .agent_socket import AgentSocket
from .freezing import thawed_after
from .service import UNIT
from .vm import Guest

pytestmark = pytest.mark.timeout(900)

PLACE = "/mnt/größe"
DROP_IN = f"/run/systemd/system/{UNIT}.d/locale.conf"
MOUNT = f"""
modprobe brd rd_nr=1 rd_size=8192
mkfs.ext4 -q /dev/ram0
mkdir -p {PLACE}
mount /dev/ram0 {PLACE}
systemctl daemon-reload
systemctl restart {UNIT}
"""
UNMOUNT = f"""
rm {DROP_IN}
systemctl daemon-reload
systemctl restart {UNIT}
umount {PLACE}
rmdir {PLACE}
modprobe --remove brd
"""


@pytest.fixture(scope="module")
def agent(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentSocket]:
    folder = tmp_path_factory.mktemp("locale")
    make_german(folder)
    put(guest, folder / GERMAN / "LC_CTYPE", f"/run/locale/{GERMAN}/LC_CTYPE")
    guest.write_file(DROP_IN, f"[Service]\nEnvironment=LANG={GERMAN} LOCPATH=/run/locale\n")
    guest.run(["/bin/sh", "-ec", MOUNT])
    try:
        with guest.connect() as agent, thawed_after(agent):
            yield agent
    finally:
        guest.run(["/bin/sh", "-ec", UNMOUNT])


def put(guest: Guest, file: Path, path: str) -> None:
    script = 'mkdir -p "${1%/*}"; cat >"$1"'
    guest.run(["/bin/sh", "-ec", script, "sh", path], stdin=file.read_bytes())


def test_the_locale_is_another(guest: Guest, agent: AgentSocket) -> None:
    argv = [
        "env",
        f"LANG={GERMAN}",
        "LOCPATH=/run/locale",
        "/usr/bin/python3",
        "-IX",
        "utf8=0",
        "-c",
    ]
    script = "import sys; print(sys.getfilesystemencoding())"
    assert guest.run([*argv, script]).stdout == "iso8859-1\n"


def test_a_filesystem_is_frozen_by_its_name(guest: Guest, agent: AgentSocket) -> None:
    assert agent.execute("guest-fsfreeze-freeze-list", mountpoints=[PLACE]) == 1
    assert agent.execute("guest-fsfreeze-status") == "frozen"
    assert agent.execute("guest-fsfreeze-thaw") == 1


def test_a_filesystem_is_reported_by_its_name(guest: Guest, agent: AgentSocket) -> None:
    assert guest.original is not None
    for asked in (agent, guest.original):
        places = {each["mountpoint"] for each in asked.execute("guest-get-fsinfo")}
        assert PLACE in places


def test_a_child_has_that_locale(agent: AgentSocket, guest: Guest) -> None:
    pid = agent.execute("guest-exec", path="env", capture_output=True)["pid"]
    lines = guest.wait_exec(agent, ["env"], pid).stdout.splitlines()
    assert f"LANG={GERMAN}" in lines
    assert not any(line.startswith("LC_") for line in lines)
