"""The real pyinfra, and a guest that it reaches through its agent."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

from tests.guest.vm import ORIGINAL_PORT, Guest
from tests.host.day import Day
from tests.unit.host_root import qemu

from .running import Done, is_running, lines_of, run

pytest.importorskip("pyinfra", reason="pyinfra needs Python 3.10")

pytestmark = pytest.mark.timeout(900)

# The guest's processor is emulated, and busy.
PATIENT = ("--data", "qga_timeout=60")

FILES = """
from io import StringIO

from pyinfra import host
from pyinfra.facts.server import Hostname
from pyinfra.operations import apt, files, server

files.put(src=StringIO("plain\\n"), dest="/srv/plain")
files.template(
    src="motd.j2", dest="/etc/motd", mode="0600", user="person", group="person",
    name_of_host=host.get_fact(Hostname),
)
apt.packages(packages=["busybox-static"])
"""

DEPLOY = f"""
{FILES}
files.put(src="image.raw", dest="/srv/image.raw", mode="0640")
for how, arguments in (
    ("su", dict(_su_user="person")),
    ("sudo", dict(_sudo=True, _sudo_user="person")),
):
    files.put(src=StringIO("by " + how + "\\n"), dest="/home/person/" + how, **arguments)
    server.shell(commands=["id -un >by-" + how], _chdir="/home/person", **arguments)
server.shell(
    commands=["read line; echo $line and $SHELL_VARIABLE >/srv/shell"],
    _stdin="typed", _env=dict(SHELL_VARIABLE="it's set"), _shell_executable="bash",
)
files.get(src="/srv/image.raw", dest="image.back")
files.get(src="/home/person/su", dest="su.back", _su_user="person")
"""

SEEN = """
cd /srv
stat --format='%n %a %U %s' image.raw plain /etc/motd /home/person/su /home/person/sudo
sha256sum <image.raw
cat plain shell /etc/motd /home/person/by-su /home/person/by-sudo
ls -d /tmp/tmp.* 2>/dev/null || true
"""

# `pyinfra` as a library, as its documentation shows it.
PROGRAM = """
from gevent import monkey
monkey.patch_all()
from pyinfra.api import Config, Inventory, State
from pyinfra.api.connect import connect_all
from pyinfra.api.exceptions import PyinfraError
from pyinfra.facts.server import Hostname

data = {"qga_timeout": 60, "qga_user": "nobody"}
inventory = Inventory((["@qga/web"], data))
state = State(inventory, Config())
connect_all(state)
host = inventory.get_host("@qga/web")
print(host.get_fact(Hostname))
done, output = host.run_shell_command("id -un; echo err >&2; exit 3", _success_exit_codes=[3])
print(done, output.stdout, output.stderr)
try:
    host.put_file(__import__("io").BytesIO(b""), "/root/forbidden")
except OSError as error:
    print(error)
host.disconnect()
"""


def pyinfra(web: Day, *arguments: str) -> Done:
    return run(web, "pyinfra", "-y", *PATIENT, *arguments)


@pytest.fixture(scope="module")
def deployed(web: Day, guest: Guest, person: str) -> Iterator[Done]:
    """What the first deployment said. It makes no user: pyinfra asks for all, in a slow loop."""
    assert person == "person"
    (web.work / "deploy.py").write_text(DEPLOY)
    (web.work / "motd.j2").write_text("Welcome to {{ name_of_host }}\n")
    yield pyinfra(web, "@qga/web", "deploy.py")
    guest.run(["/bin/sh", "-c", "rm -r /srv/* /etc/motd /home/person/*su*"], check=False)


def test_a_deployment(deployed: Done, web: Day, guest: Guest) -> None:
    assert deployed.status == 0, deployed.said
    whole = (web.work / "image.raw").read_bytes()
    lines = guest.run(["/bin/sh", "-ec", SEEN]).stdout.splitlines()
    assert lines[:5] == [
        f"image.raw 640 root {len(whole)}",
        "plain 644 root 6",
        "/etc/motd 600 person 17",
        "/home/person/su 644 person 6",
        "/home/person/sudo 644 person 8",
    ]
    assert lines[5] == f"{hashlib.sha256(whole).hexdigest()}  -"
    assert lines[6:] == [
        "plain",
        "typed and it's set",
        "Welcome to guest",
        "person",
        "person",
    ]
    assert (web.work / "image.back").read_bytes() == whole
    assert (web.work / "su.back").read_text() == "by su\n"


def test_a_second_deployment_changes_nothing(deployed: Done, web: Day) -> None:
    (web.work / "again.py").write_text(FILES)
    again = pyinfra(web, "@qga/web", "again.py")
    assert again.status == 0, again.said
    total = next(line for line in again.said.splitlines() if "Grand total" in line)
    assert total.split() == ["Grand", "total", "3", "-", "-", "3"], again.said


def test_a_command_that_fails_ends_the_deployment_of_its_guest(web: Day, guest: Guest) -> None:
    (web.work / "failing.py").write_text(
        "from pyinfra.operations import server\n"
        "server.shell(commands=['echo broken >&2; exit 3'])\n"
        "server.shell(commands=['touch /srv/not-reached'])\n"
    )
    done = pyinfra(web, "@qga/web", "failing.py")
    assert done.status == 1
    assert "[@qga/web] broken" in done.said
    assert "Traceback" not in done.said
    assert guest.run(["test", "-e", "/srv/not-reached"], check=False).status == 1


def test_output_appears_line_by_line(web: Day) -> None:
    program = "echo one; sleep 3; echo two"
    lines = lines_of(web, "pyinfra", "-y", *PATIENT, "@qga/web", "exec", "--", program)
    times = {line.rpartition(" ")[2]: time.monotonic() for line in lines if "[@qga" in line}
    assert times["two"] - times["one"] > 1.5


def test_a_program_that_takes_too_long_is_ended(web: Day, guest: Guest) -> None:
    (web.work / "slow.py").write_text(
        "from pyinfra.operations import server\n"
        "server.shell(commands=['echo begun; sleep 4321'], _timeout=1)\n"
    )
    done = pyinfra(web, "@qga/web", "slow.py")
    assert done.status == 1
    assert "Command timed out after 1s" in done.said
    assert not is_running(guest, "sleep 4321")


def test_an_unknown_guest_does_not_stop_the_others(web: Day) -> None:
    done = pyinfra(web, "@qga/web,@qga/wbe", "exec", "--", "echo reached")
    assert "wbe: no running guest with this name has an agent port; available: web" in done.said
    assert "[@qga/web] reached" in done.said
    assert "Traceback" not in done.said


def test_all_guests_of_the_host_that_answer(guest: Guest, tmp_path: Path) -> None:
    host = Day(guest, tmp_path)
    host.host.process(99_999_999, qemu("guest=gone", "/run/vm/gone"))
    done = pyinfra(host, "@qga", "exec", "--", "echo reached")
    assert done.status == 0, done.said
    assert "[@qga/web] reached" in done.said
    assert "/run/vm/gone: " in done.said
    assert "Traceback" not in done.said


def test_no_guest_of_the_host_answers(web: Day, tmp_path: Path) -> None:
    done = run(web, "pyinfra", "@qga", "exec", "--", "true", QGA_HOST_ROOT=str(tmp_path))
    assert done.status == 1
    assert "no guest of this host answers; `qgactl list`" in done.said


def test_a_guest_that_stops_in_the_middle(web: Day, guest: Guest) -> None:
    options = ("-y", "--data", "qga_timeout=5")
    lines = lines_of(web, "pyinfra", *options, "@qga/web", "exec", "--", "echo begun; sleep 60")
    before = list(takewhile(lambda line: line != "[@qga/web] begun", lines))
    guest.qmp("stop")
    try:
        after = list(lines)
    finally:
        guest.qmp("cont")
    assert any("qga-exec-read: timed out after 5 s" in line for line in after), [*before, *after]
    assert "--> pyinfra error: No hosts remaining!" in after
    assert not any("Traceback" in line for line in after)


def test_the_library_of_pyinfra(web: Day) -> None:
    (web.work / "program.py").write_text(PROGRAM)
    done = run(web, "python", "program.py")
    assert done.status == 0, done.said
    *lines, refusal = done.said.splitlines()
    assert lines == ["guest", "True nobody err"]
    assert "/root/forbidden" in refusal
    assert "Permission denied" in refusal


SMALL = """
from io import StringIO
from pyinfra.operations import files, server

files.put(src=StringIO("small\\n"), dest="/srv/small")
server.shell(commands=["cat /srv/small; rm /srv/small; id -un >&2; exit 3"])
"""


def test_qemus_own_agent(guest: Guest, web: Day) -> None:
    (web.work / "small.py").write_text(SMALL)
    address = f"@qga/unix:{guest.channel_path(ORIGINAL_PORT)}"
    assert guest.original
    guest.original.close()  # the port takes one client at a time
    try:
        small = pyinfra(web, address, "small.py")
        as_nobody = pyinfra(web, "--data", "qga_user=nobody", address, "exec", "--", "id -un")
    finally:
        guest.original = guest.connect(ORIGINAL_PORT)
    assert small.status == 1, small.said
    assert f"[{address}] small" in small.said
    assert f"[{address}] root" in small.said
    assert as_nobody.status == 0, as_nobody.said
    assert f"[{address}] nobody" in as_nobody.said
