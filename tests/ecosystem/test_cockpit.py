"""The page for Cockpit: a real Cockpit, a real browser, and a real guest.

QGA_PICTURES=docs saves the pictures of the documentation.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.guest import hardware
from tests.guest.vm import AGENT_PORT, Guest
from tests.host.day import SOCKETS, Day
from tests.unit.host_root import HostRoot, qemu

from .browser import NARROW, PATIENCE, WIDE, Page
from .cockpit import AS_DAEMON, chromium, install, served

pytestmark = pytest.mark.timeout(900)  # the first test boots the guest

QGACTL = Path(sys.executable).parent / "qgactl"
INTO, OUT = (
    "//form[@aria-label='Copy into the guest']",
    "//form[@aria-label='Copy out of the guest']",
)
INVALID = "form[aria-label='Copy into the guest'] input:invalid"
PARTS = ("Overview", "Filesystems", "Terminal", "Copy files", "Doctor")
MARKUP = "<img src=x onerror=document.title='hit'>"


@dataclass
class Host:
    """The host whose only guest is `web`. qgactl is as patient there as an emulated guest needs."""

    day: Day
    env: dict[str, str]
    data: Path

    def qgactl(self, *words: str) -> dict[str, str]:
        """What `qgactl WORD web` prints."""
        argv = [str(QGACTL), "--timeout=60", "--json", *words, "web"]
        told = subprocess.run(argv, env=self.env, capture_output=True, check=True, timeout=90)
        return dict(json.loads(told.stdout))


@pytest.fixture(scope="module")
def host(web: Day, tmp_path_factory: pytest.TempPathFactory) -> Host:
    data = install(tmp_path_factory.mktemp("data"))
    path = f"{wrapper(data / 'bin', PATIENCE)}:{os.environ['PATH']}"
    return Host(web, {**web.env, "PATH": path}, data)


def wrapper(folder: Path, timeout: int) -> Path:
    """A directory for PATH, with a qgactl that waits this many seconds for replies."""
    folder.mkdir()
    qgactl = folder / "qgactl"
    qgactl.write_text(f'#!/bin/sh\nexec {shlex.quote(str(QGACTL))} --timeout={timeout} "$@"\n')
    qgactl.chmod(0o755)
    return folder


@pytest.fixture(scope="module", name="opened")
def opened_(host: Host) -> Iterator[Page]:
    with served(host.env, host.data) as cockpit, chromium() as browser:
        yield Page(browser, cockpit, f"unix:{host.day.root}{SOCKETS}/{AGENT_PORT.name}")


@pytest.fixture
def page(opened: Page) -> Iterator[Page]:
    """The page; nothing in it may break a rule of Cockpit's policy or raise an error."""
    opened.resize(WIDE)
    opened.prefer("light")
    yield opened
    assert opened.complaints() == []


def test_the_guests_of_this_host(page: Page) -> None:
    page.open_list()
    row = page.find("//tbody/tr").text
    assert {"web", "answers", "guest", "10.0.2.15"} <= set(row.split())
    assert "Debian GNU/Linux" in row


def test_the_page_is_in_cockpits_menu(page: Page) -> None:
    page.browser.get(page.cockpit)
    page.link("Guests").click()
    enter(page)
    page.link("web").click()
    assert page.fact("Host name") == "guest"
    page.browser.switch_to.default_content()
    assert "/qga#/overview" in page.script("location.href")


def test_what_the_guest_is(page: Page, guest: Guest) -> None:
    page.open_guest()
    assert page.fact("Kernel") == guest.run(["uname", "-r"]).stdout.strip()
    assert page.fact("Host name") == "guest"
    assert "10.0.2.15/24" in page.text("//table[@aria-label='Network interfaces']")


def test_metrics_are_live(page: Page, guest: Guest) -> None:
    page.turn_to("Overview")
    before = int(page.fact("Processes"))
    guest.run(["/bin/sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 600 >/dev/null 2>&1 & done"])
    try:
        page.wait(lambda: int(page.fact("Processes")) >= before + 8)
    finally:
        guest.run(["pkill", "-f", "sleep 600"])
    page.wait(lambda: page.all("//*[local-name()='svg'][contains(@aria-label, '% busy')]"))
    page.picture("overview")


def test_filesystems(page: Page, guest: Guest) -> None:
    page.turn_to("Filesystems")
    row = page.find("//tbody/tr[td[1][normalize-space()='/']]").text.split()
    device, kind = guest.run(["findmnt", "-no", "SOURCE,FSTYPE", "/"]).stdout.split()
    assert row[1:3] == [device.removeprefix("/dev/"), kind]
    assert row[-1] == "%"


def test_a_shell_in_the_terminal(page: Page, guest: Guest) -> None:
    page.open_guest("terminal")
    screen = "//*[contains(@class, 'xterm-accessibility-tree')]"
    page.wait(lambda: "#" in page.browser.find_element("xpath", screen).text)
    keys = "echo $((6*7)) >/tmp/typed; stty size >/tmp/size; echo se''en\n"
    ActionChains(page.browser).send_keys(keys).perform()
    page.wait(lambda: "seen" in page.browser.find_element("xpath", screen).text)
    assert guest.run(["cat", "/tmp/typed"]).stdout == "42\n"
    rows = len(page.browser.find_elements("xpath", f"{screen}/*"))
    assert guest.run(["cat", "/tmp/size"]).stdout.split()[0] == str(rows)
    page.link("Overview").click()
    assert page.fact("Host name") == "guest", "the shell did not make way"
    guest.run(["rm", "/tmp/typed", "/tmp/size"])


def test_the_keyboard_leaves_the_terminal(page: Page) -> None:
    page.open_guest("terminal")
    page.wait(lambda: page.script("document.activeElement.closest('.qga-terminal')"))
    keys = ActionChains(page.browser).key_down(Keys.CONTROL).key_down(Keys.SHIFT)
    keys.send_keys(Keys.F6).key_up(Keys.SHIFT).key_up(Keys.CONTROL).perform()
    assert page.script("document.activeElement.textContent") == "Terminal"


def test_copies_into_the_guest_and_out(page: Page, guest: Guest, host: Host) -> None:
    site, back = host.day.work / "site", host.day.work / "back"
    guest.run(["rm", "-rf", "/root/site"])
    shutil.rmtree(back, ignore_errors=True)
    page.turn_to("Copy files")
    copy(page, INTO, str(site), "/root/site")
    assert "Copied 2 files" in page.text(f"{INTO}//*[contains(@class, 'pf-m-success')]")
    assert guest.run(["cat", "/root/site/index.html"]).stdout == "<h1>It works</h1>\n"
    copy(page, OUT, "/root/site", str(back))
    page.wait(lambda: page.all(f"{OUT}//*[contains(@class, 'pf-m-success')]"))
    assert (back / "images/logo.png").read_bytes() == (site / "images/logo.png").read_bytes()
    guest.run(["rm", "-r", "/root/site"])


def test_a_copy_of_what_is_not_there(page: Page, host: Host) -> None:
    page.turn_to("Copy files")
    copy(page, OUT, "/nosuch", str(host.day.work / "nosuch"))
    assert "/nosuch: no such file or directory" in page.text(f"{OUT}//*[@role='alert']")


def test_paths_have_to_be_absolute(page: Page) -> None:
    page.turn_to("Copy files")
    result = page.browser.find_element("xpath", f"{INTO}//*[@aria-live]")
    before = result.text
    copy(page, INTO, "relative", "/root")
    assert page.script(f"document.querySelector({INVALID!r}).validationMessage")
    assert result.text == before


def test_a_copy_that_is_cancelled_before_its_turn(page: Page, guest: Guest, host: Host) -> None:
    page.open_guest("copy")
    page.find(f"{INTO}//input")
    with socket.socket(socket.AF_UNIX) as other:  # QEMU serves one client at a time
        other.connect(page.guest.removeprefix("unix:"))
        page.link("Doctor").click()
        page.link("Copy files").click()
        copy(page, INTO, str(host.day.work / "site"), "/root/cancelled")
        page.button("Cancel", INTO).click()
    assert "Cancelled" in page.text(f"{INTO}//*[@role='alert']")
    assert guest.run(["ls", "/root/cancelled"], check=False).status != 0


def test_a_copy_in_progress_is_cancelled(page: Page, guest: Guest, host: Host) -> None:
    large = host.day.work / "large"
    large.touch()
    os.truncate(large, 1 << 30)
    guest.run(["mkdir", "-p", "/root/into"])
    page.turn_to("Copy files")
    copy(page, INTO, str(large), "/root/into/large")
    page.wait(lambda: guest.run(["ls", "-A", "/root/into"]).stdout)
    page.button("Cancel", INTO).click()
    assert "Cancelled" in page.text(f"{INTO}//*[@role='alert']")
    assert guest.run(["ls", "/root/into/large"], check=False).status != 0
    large.unlink()
    guest.run(["rm", "-r", "/root/into"])


def copy(page: Page, form: str, source: str, target: str) -> None:
    page.find(f"{form}//input")
    for field, path in zip(page.all(f"{form}//input"), (source, target)):
        field.clear()
        field.send_keys(path)
    page.button("Copy", form).click()


def test_freezes_and_thaws(page: Page, host: Host) -> None:
    page.turn_to("Filesystems")
    page.button("Freeze…").click()
    page.button("Cancel", "//dialog").click()
    assert host.qgactl("status") == {"status": "thawed"}
    page.button("Freeze…").click()
    page.button("Freeze", "//dialog").click()
    try:
        assert "frozen" in page.text("//*[@role='alert']")
        assert host.qgactl("status") == {"status": "frozen"}
        page.picture("frozen")
        page.button("Thaw").click()
        page.wait(lambda: not page.all("//*[@role='alert']"))
        assert host.qgactl("status") == {"status": "thawed"}
    finally:
        host.qgactl("thaw")


def test_warns_of_what_others_have_frozen(page: Page, host: Host) -> None:
    host.qgactl("freeze")
    try:
        with page.hurried():
            page.open_list()
        assert "frozen" in page.find("//tbody/tr").text
        page.link("web").click()
        assert "frozen" in page.text("//*[contains(@class, 'qga-warning')]/*[@role='alert']")
    finally:
        host.qgactl("thaw")
    page.wait(lambda: not page.all("//*[contains(@class, 'qga-warning')]/*"))


def test_doctor(page: Page) -> None:
    page.open_guest("doctor")
    assert "The agent answers as it should" in page.text("//*[@role='alert']")
    assert "the agent answers" in page.find("//tbody/tr[td[2][normalize-space()='answer']]").text


# Other tests of this run may have mounted the disk elsewhere, and expect it there.
NAME_AND_MOUNT = f"""{hardware.DISK}
printf %s "$1" >/proc/sys/kernel/hostname # hostname(1) is choosier
usb=$(disk USB-1)
findmnt -no TARGET "$usb" >/run/elsewhere && umount "$usb"
blkid "$usb" >/dev/null || mkfs.ext4 -q "$usb"
mkdir -p "$2"
mount "$usb" "$2"
"""
UNDO = f"""{hardware.DISK}
hostname guest
umount "$1" && rmdir "$1"
if [ -s /run/elsewhere ]; then mount "$(disk USB-1)" "$(cat /run/elsewhere)"; fi
"""


def test_what_a_hostile_guest_says_stays_text(page: Page, guest: Guest) -> None:
    place = f"/mnt/{MARKUP}"
    try:
        guest.run(["/bin/sh", "-ec", NAME_AND_MOUNT, "sh", MARKUP, place])
        page.open_list()
        page.wait(lambda: MARKUP in page.text())
        page.link("web").click()
        assert page.fact("Host name") == MARKUP
        page.link("Filesystems").click()
        page.wait(lambda: place in page.text())
        assert page.script("document.querySelectorAll('main img, main script').length") == 0
        assert page.script("document.title") == "Guests"
    finally:
        guest.run(["/bin/sh", "-c", UNDO, "sh", place])


def test_text_that_deceives_is_visible(page: Page) -> None:
    page.open_list()
    shown = page.browser.execute_async_script(
        "import(new URL('dom.js', document.baseURI)).then(({ printable }) =>"
        " arguments[0](printable('a\\u202eb\\u0007' + 'x'.repeat(5000))))"
    )
    assert shown.startswith("a\ufffdb\ufffdx")
    assert len(shown) == 1001


def test_cockpits_policy_is_as_strict_as_ever(page: Page) -> None:
    page.open_list()
    policy = page.browser.execute_async_script(
        "fetch(location.href).then(reply =>"
        " arguments[0](reply.headers.get('Content-Security-Policy')))"
    )
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy


def test_every_part_on_a_narrow_dark_screen_and_for_screen_readers(page: Page) -> None:
    page.prefer("dark")
    page.resize(NARROW)
    for part in PARTS:
        page.turn_to(part)
        page.wait(lambda: "Loading" not in page.text())
        assert page.find("//*[@aria-current='page']").text == part
        wider = page.script("document.documentElement.scrollWidth - window.innerWidth")
        assert wider <= 0, part
        assert nameless(page) == [], part
    assert max(background(page)) < 64
    page.turn_to("Filesystems")
    assert page.find("//td[@data-label='Mounted at']")


def nameless(page: Page) -> list[str | None]:
    reached = page.all("//main//*[self::a or self::button or self::input or self::table]")
    return [each.get_attribute("outerHTML") for each in reached if not each.accessible_name]


def background(page: Page) -> list[int]:
    color = page.script("getComputedStyle(document.documentElement).backgroundColor")
    return [int(part) for part in color.strip("rgb()").split(",")]


def test_the_keyboard_suffices(page: Page) -> None:
    page.turn_to("Filesystems")
    page.button("Freeze…").send_keys(Keys.ENTER)
    page.wait(lambda: page.script("document.activeElement.textContent") == "Cancel")
    ActionChains(page.browser).send_keys(Keys.ESCAPE).perform()
    page.wait(lambda: not page.all("//dialog"))


def enter(page: Page) -> None:
    """Find things in the page from now on, not in Cockpit's menu around it."""
    page.browser.switch_to.frame(page.find("//iframe[contains(@name, '/qga')]"))


def test_a_link_cannot_choose_what_qgactl_connects_to(page: Page, mute: Path) -> None:
    with socket.socket(socket.AF_UNIX) as trap:
        trap.bind(str(mute / "trap"))
        trap.listen()
        trap.setblocking(False)
        Page(page.browser, page.cockpit, f"unix:{mute}/trap").open_guest()
        assert "There is no guest web on this host" in page.text("//*[@role='alert']")
        with pytest.raises(BlockingIOError):
            trap.accept()
    page.link("All guests of this host").click()
    page.link("web").click()
    assert page.fact("Host name") == "guest"


def test_a_guest_that_is_gone(silent: Page, mute: Path) -> None:
    (mute / "mute").unlink()
    silent.open_guest("doctor")
    assert "failed" in silent.text("//tbody/tr[td[2][normalize-space()='socket']]")
    silent.link("Filesystems").click()
    assert "Cannot connect to the guest" in silent.text("//*[@role='alert']")


def test_a_silent_guest(silent: Page) -> None:
    silent.open_list()
    assert silent.find("//tbody/tr").text.split()[:2] == ["mute", "silent"]
    silent.link("mute").click()
    silent.link("Filesystems").click()
    assert "The guest does not answer" in silent.text(
        "//*[@id='panel-filesystems']//*[@role='alert']"
    )


@pytest.fixture
def silent(host: Host, page: Page, mute: Path, tmp_path: Path) -> Iterator[Page]:
    """The page on the host `mute`, where qgactl is not patient."""
    path = f"{wrapper(tmp_path / 'bin', 1)}:{os.environ['PATH']}"
    env = {**host.env, "PATH": path, "QGA_HOST_ROOT": str(mute)}
    with served(env, host.data) as cockpit:
        yield Page(page.browser, cockpit, f"unix:{mute}/mute", "mute")


@pytest.fixture
def mute() -> Iterator[Path]:
    """A host whose only guest has no agent: nobody answers at its socket."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        root = Path(folder)
        listener.bind(str(root / "mute"))
        listener.listen()
        HostRoot(root).process(os.getpid(), qemu("mute", "/mute"))
        yield root


def test_a_host_without_qgactl(host: Host, page: Page) -> None:
    with served({**host.env, "PATH": "/usr/bin:/bin"}, host.data) as cockpit:
        Page(page.browser, cockpit).open_list()
        assert "qgactl is not installed on this host" in page.text("//*[@role='alert']")


# In place of the real one, which Cockpit runs as `sudo -k -A cockpit-bridge --privileged`: root
# without the powers of root, who may use the sockets from now on.
SUDO = """#!/bin/sh
chmod 700 {sockets}
shift 2
exec unshare --map-root-user -- "$@"
"""


def test_administrative_access(host: Host, page: Page, guest: Guest, tmp_path: Path) -> None:
    day = Day(guest, tmp_path)
    sockets = day.root / SOCKETS[1:]
    sockets.chmod(0)
    sudo = tmp_path / "sudo"
    sudo.write_text(SUDO.format(sockets=sockets))
    sudo.chmod(0o755)
    env = {
        **host.env,
        "PATH": f"{tmp_path}:{host.env['PATH']}",
        "QGA_HOST_ROOT": str(day.root),
    }
    with served(env, host.data, AS_DAEMON) as cockpit:
        page.browser.get(f"{cockpit}/qga")
        enter(page)
        assert "Administrative access is turned off" in page.text("//*[@role='status']")
        page.link("web").click()
        assert "Turn on administrative access" in page.text("//*[@role='alert']")
        page.browser.switch_to.default_content()
        page.button("Limited access").click()
        assert "You now have administrative access" in page.text("//*[@role='dialog']")
        page.button("Close").click()
        page.wait(lambda: "Debian GNU/Linux" in text_of_the_frame(page))


def text_of_the_frame(page: Page) -> str:
    """What the page says in Cockpit's frame, which Cockpit may load anew at any time."""
    page.browser.switch_to.default_content()
    enter(page)
    try:
        return page.text()
    finally:
        page.browser.switch_to.default_content()
