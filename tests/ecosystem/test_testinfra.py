"""The real Testinfra in a real guest: `pytest --hosts=qga://web`."""

from __future__ import annotations

import pytest

from tests.guest.vm import Guest
from tests.host.day import Day

from .running import Done, run

pytest.importorskip("testinfra")

pytestmark = pytest.mark.timeout(900)

PLAIN = ("-p", "no:cacheprovider", "-p", "no:xdist", "-c", "/dev/null", "--rootdir=.")

MODULES = """
import pytest


def test_modules(host):
    passwd = host.file("/etc/passwd")
    assert passwd.exists and passwd.mode == 0o644 and passwd.user == "root"
    assert passwd.contains("^root:")
    assert not host.file("/nosuch").exists
    assert host.package("systemd").is_installed
    assert host.package("systemd").version.startswith("25")
    assert not host.package("nosuch").is_installed
    unit = host.service("qga-test")
    assert unit.is_running and unit.is_enabled
    assert host.user("root").home == "/root"
    assert host.system_info.distribution == "debian"


def test_commands(host):
    failed = host.run("echo out; echo %s >&2; exit 7", "it's wrong")
    assert (failed.rc, failed.stdout, failed.stderr) == (7, "out\\n", "it's wrong\\n")
    assert host.run("cat", stdin="typed").stdout == "typed"
    assert host.run("printf '\\\\377'").stdout_bytes == b"\\xff"
    with pytest.raises(TimeoutError, match="the program took too long"):
        host.run("sleep 4322", timeout=1)
    assert host.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep '[s]leep 4322'").rc == 1
    with host.sudo("nobody"):
        assert host.check_output("id -un") == "nobody"
"""


def pytest_with(web: Day, hosts: str, tests: str, *options: str) -> Done:
    (web.work / "test_guest.py").write_text(tests)
    return run(web, "pytest", *PLAIN, f"--hosts={hosts}", *options, "test_guest.py")


def test_modules_and_commands(web: Day) -> None:
    done = pytest_with(web, "qga://web?timeout=60", MODULES, "-v")
    assert done.status == 0, done.said
    assert "test_modules[qga://web] PASSED" in done.said


def test_another_user_and_all_guests_of_the_host(web: Day) -> None:
    test = "def test(host):\n    assert host.check_output('id -un') == 'nobody'\n"
    for hosts in ("qga://nobody@*", "qga://nobody@w*", "qga://nobody@"):
        done = pytest_with(web, f"{hosts}?timeout=60", test, "-v")
        assert done.status == 0, done.said
        assert "test[qga://nobody@web] PASSED" in done.said


def test_an_address_with_slashes(web: Day, guest: Guest) -> None:
    address = f"unix:{guest.channel_path()}".replace("/", "%2F")
    test = "def test(host):\n    assert host.check_output('hostname') == 'guest'\n"
    done = pytest_with(web, f"qga://{address}?timeout=60", test)
    assert done.status == 0, done.said


def test_guests_that_do_not_exist(web: Day) -> None:
    test = "def test(host):\n    host.run('true')\n"
    one = pytest_with(web, "qga://wbe", test)
    assert one.status == 1
    assert "wbe: no running guest with this name has an agent port; available: web" in one.said
    none = pytest_with(web, "qga://db*", test)
    assert none.status != 0
    assert "qga://db*: no such guest runs on this host; there are: web" in none.said


def test_a_run_without_guests_imports_nothing_of_them(web: Day) -> None:
    test = (
        "import sys\nPLUGIN = 'qga.integrations.pytest_plugin'\n"
        "def test():\n"
        "    ours = {name for name in sys.modules if name.partition('.')[0] == 'qga'}\n"
        "    assert ours == {'qga', 'qga.version', 'qga.integrations', PLUGIN}\n"
    )
    (web.work / "test_plain.py").write_text(test)
    done = run(web, "pytest", *PLAIN, "-p", "no:pytest11.testinfra", "test_plain.py")
    assert done.status == 0, done.said
