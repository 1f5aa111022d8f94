"""Installing and removing the Debian package with dpkg and apt of each supported release.

No file may be lost, whether the other package has its unit in /lib or /usr/lib. qemu-ga.conf must
be in place at every moment, because without it the agent would allow everything.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.packaging.built import debs, output
from tests.packaging.debian import ORIGINAL, SUITES, Root, copy, root

pytestmark = pytest.mark.timeout(600)

HERE = Path(__file__).parent
CONFIG = "/etc/qemu/qemu-ga.conf"
RULES = "[general]\nblock-rpcs=guest-exec\n"
SET_RULES = f"printf '{RULES}' >{CONFIG}"
UNIT = "/usr/lib/systemd/system/qemu-guest-agent.service"
SCRIPT = "/etc/init.d/qemu-guest-agent"
WANTED = "/etc/systemd/system/dev-virtio*.device.wants/qemu-guest-agent.service"
OURS = "/root/qga.deb"
NEWER, FIRST_RELEASE = "/root/newer.deb", "/root/first.deb"
FAILING, STEPPED = "/root/failing.deb", "/root/stepped.deb"

INSTALL = {"dpkg": "dpkg -i", "apt": "apt-get install --yes --allow-downgrades"}

# Prints what else becomes of qemu-ga.conf than that another file takes its place.
WATCH = """
import ctypes, os, re, subprocess, sys
MODIFY, MOVED_FROM, DELETE = 0x2, 0x40, 0x200
libc = ctypes.CDLL(None)
fd = libc.inotify_init1(os.O_NONBLOCK)
assert libc.inotify_add_watch(fd, b"/etc/qemu", MODIFY | MOVED_FROM | DELETE) >= 0
subprocess.run(sys.argv[1], shell=True, check=True, stdin=subprocess.DEVNULL)
try:
    events = os.read(fd, 1 << 20)
except BlockingIOError:
    events = b""
lost = re.findall(rb"(.{4}).{8}qemu-ga\\.conf\\0", events, re.DOTALL)
print("lost:", *(int.from_bytes(mask, sys.byteorder) for mask in lost))
"""

# Counts what a maintainer script does, command by command, and kills dpkg and itself before the
# one whose number is in /kill-at.
STEP = """#!/bin/bash
step() {
    read -r number </step
    read -r last </kill-at
    echo $((number += 1)) >/step
    if [ $number = "$last" ]; then
        kill -KILL $PPID $$
    fi
}
trap step DEBUG
"""


@pytest.fixture(scope="module", name="packages")
def packages_(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Our package and variants of it, by their path in a root."""
    folder = tmp_path_factory.mktemp("packages")
    return {
        OURS: debs().agent,
        NEWER: changed(folder / "newer", lambda tree: set_version(tree, "99.0")),
        FIRST_RELEASE: changed(folder / "first", make_first_release),
        FAILING: changed(folder / "failing", fail_to_unpack),
        STEPPED: changed(folder / "stepped", count_steps),
    }


@pytest.fixture(name="machine", params=SUITES)
def machine_(request: pytest.FixtureRequest, packages: dict[str, Path]) -> Iterator[Root]:
    """A machine with QEMU's agent."""
    with root(request.param) as machine:
        for path, package in packages.items():
            machine.put(package, path)
        yield machine


def changed(folder: Path, change: Callable[[Path], None]) -> Path:
    """Our package, changed."""
    output("dpkg-deb", "--raw-extract", debs().agent, folder)
    change(folder)
    output("dpkg-deb", "--build", "--root-owner-group", folder, f"{folder}.deb")
    return Path(f"{folder}.deb")


def set_version(tree: Path, version: str) -> None:
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines()
    kept = [line for line in lines if not line.startswith("Version:")]
    control.write_text("\n".join([*kept, f"Version: {version}", ""]))


def make_first_release(tree: Path) -> None:
    """The package as 0.1 was: below /lib, with a conffile, and with scripts that moved it."""
    set_version(tree, "0.0.1")
    for name in ("systemd", "udev"):
        shutil.move(tree / "usr/lib" / name, tree / "lib" / name)
    shutil.move(tree / "usr/share/qga/qemu-ga.conf", tree / CONFIG[1:])
    (tree / "DEBIAN/conffiles").write_text(f"{CONFIG}\n")
    for script in ("preinst", "postinst", "prerm", "postrm"):
        (tree / "DEBIAN" / script).unlink()
    shutil.copytree(HERE / "first_release", tree / "DEBIAN", dirs_exist_ok=True)


def fail_to_unpack(tree: Path) -> None:
    """The last file is where another package has a directory."""
    (tree / "var/lib/dpkg").mkdir(parents=True)
    (tree / "var/lib/dpkg/alternatives").write_text("")


def count_steps(tree: Path) -> None:
    for script in ("preinst", "postinst", "prerm", "postrm"):
        path = tree / "DEBIAN" / script
        path.write_text(path.read_text().replace("#!/bin/sh\n", STEP, 1))


def check(machine: Root, package: str = "qga") -> None:
    """All files of the package are there, and dpkg has nothing left to do."""
    assert machine.lost(package) == []
    assert machine.run("dpkg --audit; dpkg-divert --list '*systemd*'") == ""
    assert machine.run("find / -xdev -name '*.usr-is-merged' -o -xdev -name '*.dpkg-*'") == ""


@pytest.mark.parametrize("way", INSTALL)
def test_over_the_original_and_back_no_file_is_lost(machine: Root, way: str) -> None:
    install = INSTALL[way]
    machine.run(f"{install} {OURS}")
    check(machine)
    if way == "dpkg":
        assert machine.attempt(f"{install} {ORIGINAL}").returncode, "ours is not to be replaced"
        check(machine)
        machine.run("dpkg --remove qga")
    machine.run(f"{install} {ORIGINAL}")
    check(machine, "qemu-guest-agent")
    machine.run(f"{install} {OURS}")
    check(machine)
    machine.run("dpkg --purge qemu-guest-agent")
    check(machine)
    machine.run(f"{install} {NEWER}")
    check(machine)
    machine.run("dpkg --purge qga")
    assert machine.run(f"ls -d {UNIT} {CONFIG} /usr/share/qga 2>/dev/null || true") == ""
    machine.run(f"{install} {ORIGINAL}")
    check(machine, "qemu-guest-agent")


@pytest.mark.parametrize("way", INSTALL)
def test_from_the_first_release_no_file_is_lost(machine: Root, way: str) -> None:
    machine.run(f"dpkg --remove qemu-guest-agent; {INSTALL[way]} {FIRST_RELEASE}")
    machine.run(f"{INSTALL[way]} {OURS}")
    check(machine)
    machine.run(f"{INSTALL[way]} {FIRST_RELEASE}")
    check(machine)
    machine.run(f"{INSTALL[way]} {OURS}")
    machine.run("dpkg --purge qga")
    assert machine.run("find / -xdev -path '*qemu-ga.conf*'") == ""


def test_it_is_enabled_though_the_originals_unit_was_not(machine: Root) -> None:
    machine.run(f"dpkg -i {OURS}")
    assert machine.run(f"readlink {WANTED}").strip() in (UNIT, UNIT[len("/usr") :])
    machine.run("dpkg --purge qemu-guest-agent")
    assert machine.run(f"readlink {WANTED}").strip() in (UNIT, UNIT[len("/usr") :])
    machine.run(f"rm {WANTED}; dpkg -i {NEWER}")
    assert machine.attempt(f"readlink {WANTED}").returncode, "an upgrade enabled it again"


@pytest.mark.parametrize("way", INSTALL)
def test_the_init_script_is_there_to_be_run(machine: Root, way: str) -> None:
    """A removal clears the execute bits of the script, which both packages contain."""
    install = INSTALL[way]
    machine.run(f"{install} {OURS}")
    check_script(machine, is_ours=True)
    machine.run("dpkg --purge qemu-guest-agent")
    check_script(machine, is_ours=True)
    machine.run(f"dpkg --remove qga; {install} {ORIGINAL}")
    check_script(machine, is_ours=False)
    machine.run(f"apt-get install --yes {OURS}; apt-get install --yes {ORIGINAL}")
    check_script(machine, is_ours=False)
    machine.run(f"{install} {OURS}; dpkg --purge qemu-guest-agent qga")
    assert machine.run("find /etc -name '*qemu-guest-agent*'") == ""


def check_script(machine: Root, *, is_ours: bool) -> None:
    assert machine.run(f"test -x {SCRIPT}; ls /etc/rc2.d").count("qemu-guest-agent") == 1
    assert ("python" in machine.read(SCRIPT).lower()) == is_ours


@pytest.mark.parametrize("way", INSTALL)
@pytest.mark.parametrize("edit", [f"echo '# edited' >>{SCRIPT}", f"rm {SCRIPT}"])
def test_an_init_script_that_was_edited_raises_no_question(
    machine: Root, way: str, edit: str
) -> None:
    machine.run(f"{edit}; {INSTALL[way]} {OURS}")
    check_script(machine, is_ours=True)
    kept = machine.attempt(f"tail -n 1 {SCRIPT}.dpkg-old")
    assert (kept.returncode == 0) == ("edited" in edit)
    assert kept.returncode or kept.stdout == "# edited\n"
    machine.run("dpkg --purge qga")
    assert machine.run("find /etc -name '*qemu-guest-agent*'") == ""


@pytest.mark.parametrize("machine", SUITES[:1], indirect=True)
@pytest.mark.parametrize("before", [ORIGINAL, OURS, FIRST_RELEASE])
@pytest.mark.parametrize("way", INSTALL)
def test_the_configuration_never_leaves_its_place(machine: Root, before: str, way: str) -> None:
    machine.run(f"{INSTALL[way]} {before}; {SET_RULES}")
    for action in (f"{INSTALL[way]} {OURS}", f"{INSTALL[way]} {NEWER}", "dpkg --remove qga"):
        told = machine.run(f"python3 -c '{WATCH}' '{action}'")
        assert told.splitlines()[-1] == "lost:", told
        assert machine.read(CONFIG) == RULES
    machine.run(f"{INSTALL[way]} {OURS}")
    assert machine.read(CONFIG) == RULES


@pytest.mark.parametrize("before", [ORIGINAL, FIRST_RELEASE])
def test_a_crash_at_any_step_leaves_the_configuration_and_can_be_mended(
    packages: dict[str, Path], before: str
) -> None:
    with root(SUITES[0]) as prepared:
        for path in (OURS, FIRST_RELEASE, STEPPED):
            prepared.put(packages[path], path)
        prepared.run(f"dpkg -i {before}; {SET_RULES}")
        step = 1
        while is_mended_after_a_crash(prepared, step):
            step += 1
    assert step > 10


def is_mended_after_a_crash(prepared: Root, step: int) -> bool:
    """Kill the installation at a step, and install again. False if it has fewer steps."""
    with copy(prepared) as machine:
        done = machine.attempt(f"echo {step} >/kill-at; echo 0 >/step; dpkg -i {STEPPED}")
        assert machine.read(CONFIG) == RULES, f"step {step}"
        if done.returncode == 0:
            return False
        machine.run(f"dpkg -i {OURS}")
        assert machine.read(CONFIG) == RULES, f"step {step}"
        check(machine)
        return True


@pytest.mark.parametrize(
    ("before", "package"), [(ORIGINAL, "qemu-guest-agent"), (FIRST_RELEASE, "qga")]
)
def test_an_installation_that_fails_leaves_all_as_it_was(
    machine: Root, before: str, package: str
) -> None:
    machine.run(f"dpkg --remove qemu-guest-agent; dpkg -i {before}; {SET_RULES}")
    assert machine.attempt(f"dpkg -i {FAILING}").returncode
    check(machine, package)
    assert machine.read(CONFIG) == RULES


@pytest.mark.parametrize("machine", SUITES[:1], indirect=True)
@pytest.mark.parametrize("instead", ["true", f"echo '[general]' >{CONFIG}"])
def test_what_a_crash_of_the_first_release_left_aside_comes_back(
    machine: Root, instead: str
) -> None:
    machine.run(f"{SET_RULES}; mv {CONFIG} {CONFIG}.dpkg-kept; {instead}; dpkg -i {OURS}")
    assert machine.read(CONFIG) == RULES
    check(machine)


@pytest.mark.parametrize("machine", SUITES[:1], indirect=True)
def test_what_the_administrator_has_decided_stays_so(machine: Root) -> None:
    mask = "/etc/systemd/system/qemu-guest-agent.service"
    defaults = "/etc/default/qemu-guest-agent"
    machine.run(f"ln -s /dev/null {mask}; echo DAEMON_ARGS=-v >{defaults}; dpkg -i {OURS}")
    assert "block-rpcs" in machine.read(CONFIG)
    machine.run(f"rm {CONFIG}; dpkg -i {NEWER}")
    assert machine.attempt(f"cat {CONFIG}").returncode, "it was removed and is back"
    assert machine.run(f"readlink {mask}") == "/dev/null\n"
    machine.run("dpkg --purge qga")
    assert machine.read(defaults) == "DAEMON_ARGS=-v\n"


@pytest.mark.parametrize("machine", SUITES[:1], indirect=True)
def test_a_purge_leaves_the_original_its_rules(machine: Root) -> None:
    machine.run(f"dpkg -i {OURS}; {SET_RULES}; apt-get install --yes {ORIGINAL}")
    machine.run("dpkg --purge qga")
    assert machine.read(CONFIG) == RULES
