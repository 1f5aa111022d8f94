"""The fixture `guest` of pytest's plugin, in runs of pytest as people have them."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from qga.client.hosts.qmp import run_state
from qga.integrations.booted import BootedMachine, Machine
from qga.integrations.virtual_machine import GuestError, VirtualMachine
from tests.guest.image import code_image, root_image
from tests.guest.machines import ACCELERATOR, AMD64

pytestmark = pytest.mark.timeout(900)

PYTEST = (sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "no:xdist")

BOOTED = """
import pytest


def test_programs(guest):
    assert guest.exec(["hostname"], text=True, check=True).stdout == "guest\\n"
    assert guest.osinfo().id == "debian"
    assert "console.log" in guest.console()


def test_copies(guest, tmp_path):
    (tmp_path / "there").write_bytes(bytes(range(256)) * 4096)
    assert guest.copy_to(str(tmp_path / "there"), "/root/there").port == "org.qga.data.0"
    guest.copy_from("/root/there", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == (tmp_path / "there").read_bytes()
    with pytest.raises(Exception, match="nosuch: no such file or directory"):
        guest.copy_from("/root/nosuch", str(tmp_path))


def test_states(guest):
    guest.write_file("/root/state", b"before")
    guest.save("before")
    guest.write_file("/root/state", b"after")
    guest.exec(["sync"])
    guest.restore("before")
    assert guest.read_file("/root/state") == b"before"
    guest.restore("before")
    with pytest.raises(Exception, match="never-saved"):
        guest.restore("never-saved")
    assert guest.ping() > 0
"""

ASKS = "def test_it(guest):\n    pass\n"


class Run:
    """A directory with tests of somebody, and a configuration of theirs."""

    def __init__(self, folder: Path, tests: str = ASKS, **settings: object) -> None:
        self.folder = folder
        settings = {"accelerator": ACCELERATOR, **settings}
        lines = "".join(f"guest_{name} = {value}\n" for name, value in settings.items())
        (folder / "pytest.ini").write_text(f"[pytest]\n{lines}")
        (folder / "test_guest.py").write_text(tests)
        (folder / "temporary").mkdir()

    def start(self, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*PYTEST, *options],
            cwd=self.folder,
            env={"PATH": "/usr/bin:/bin", "TMPDIR": str(self.folder / "temporary")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, *options: str) -> tuple[int, str]:
        """The status of the run, and what it said."""
        with self.start(*options) as process:
            said = process.communicate(timeout=800)[0]
        return process.returncode, said

    def leftovers(self) -> list[Path]:
        return list((self.folder / "temporary").glob("qga-guest-*"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """Its path is short enough for sockets in it."""
    with tempfile.TemporaryDirectory(prefix="qga-") as name:
        yield Path(name)


def empty_disk(folder: Path) -> Path:
    """Nothing that a machine could boot from."""
    disk = folder / "empty,disk.raw"
    with disk.open("wb") as file:
        file.truncate(1 << 20)
    return disk


def qemu_of(pytest_run: subprocess.Popen[str]) -> psutil.Process:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for child in psutil.Process(pytest_run.pid).children():
            if child.name().startswith("qemu-system"):
                return child
        time.sleep(0.05)
    raise AssertionError("QEMU was not started")


def test_a_guest_boots_and_its_image_stays_as_it_is(folder: Path) -> None:
    image = root_image()
    before = image.disk.stat()
    code = folder / "qga.ext4"
    code_image(code)
    arguments = ["-kernel", image.kernel, "-initrd", image.initrd, "-append", AMD64.kernel_options]
    arguments += ["-drive", f"if=virtio,format=raw,readonly=on,file={code}"]
    run = Run(
        folder,
        BOOTED,
        image=image.disk,
        memory=512,
        arguments=shlex.join(map(str, arguments)),
    )
    status, said = run.finish()
    assert status == 0, said
    assert said.count("PASSED") == 3
    after = image.disk.stat()
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
    assert run.leftovers() == []


def test_a_guest_that_does_not_boot_shows_its_console(folder: Path) -> None:
    kernel = root_image().kernel
    panics = f"-kernel {shlex.quote(str(kernel))} -append 'console=ttyS0 panic=-1'"
    run = Run(folder, image=empty_disk(folder).name, arguments=panics)
    status, said = run.finish()
    assert status == 1, said
    assert "the guest did not boot: QEMU has exited" in said
    assert "Kernel panic" in said
    assert "Traceback" not in said
    assert run.leftovers() == []


def test_a_guest_without_an_agent(folder: Path) -> None:
    run = Run(folder, image=empty_disk(folder).name)
    status, said = run.finish("--guest-timeout=1")
    assert status == 1, said
    assert "the guest did not boot: no agent answered within 1 s" in said
    assert run.leftovers() == []


def test_the_marker_has_precedence(folder: Path) -> None:
    marked = "import pytest\npytestmark = pytest.mark.guest(arguments=['-nosuch'], memory=64)\n"
    run = Run(folder, marked + ASKS, image=empty_disk(folder).name, memory="much")
    status, said = run.finish("--strict-markers")
    assert status == 1, said
    assert "-nosuch: invalid option" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "the fixture `guest` has no image to boot: use --guest-image"),
        (["--guest-image=nosuch.raw"], "nosuch.raw: no such image of a disk"),
        (["--guest-image=pytest.ini", "--guest-memory=much"], "are numbers: "),
        (["--guest-image=pytest.ini", "--guest-program=qemu-no"], "qemu-no is not installed"),
    ],
)
def test_settings_that_cannot_work(folder: Path, options: list[str], message: str) -> None:
    status, said = Run(folder).finish(*options)
    assert status == 1, said
    assert message in said
    assert "Traceback" not in said


OPTION = """
def pytest_addoption(parser):
    parser.addoption("--guest-image")
"""


@pytest.mark.parametrize(
    ("module", "options"), [("theirs.py", ["-p", "theirs"]), ("conftest.py", ["-p", "no:qga"])]
)
def test_an_option_of_the_same_name(tmp_path: Path, module: str, options: list[str]) -> None:
    """Of another plugin; or of the project, which turns off ours."""
    (tmp_path / module).write_text(OPTION)
    test = "def test_it(request):\n    assert request.config.getoption('--guest-image') == 'x'\n"
    (tmp_path / "test_it.py").write_text(test)
    done = subprocess.run(
        [*PYTEST, *options, "--guest-image=x"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_interrupt_while_the_guest_boots(folder: Path) -> None:
    run = Run(folder, image=empty_disk(folder).name)
    with run.start() as process:
        qemu = qemu_of(process)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[0]
    assert "KeyboardInterrupt" in said
    assert not qemu.is_running()
    assert run.leftovers() == []


def test_qemu_does_not_outlive_a_run_that_is_killed(folder: Path) -> None:
    with Run(folder, image=empty_disk(folder).name).start() as process:
        qemu = qemu_of(process)
        process.kill()
        process.communicate(timeout=60)
    assert psutil.wait_procs([qemu], timeout=30)[1] == []


def test_a_restore_that_fails_leaves_the_machine_running(folder: Path) -> None:
    machine = BootedMachine(Machine(empty_disk(folder), memory=64, accelerator=ACCELERATOR))
    try:
        machine.start_qemu(machine.arguments)
        machine.guest.save("here")
        machine.guest.restore("here")
        with pytest.raises(GuestError, match="never-saved"):
            machine.guest.restore("never-saved")
        assert run_state(machine.qmp_path, 30) == "running"
        with pytest.raises(ValueError, match="'two words' is not the name of a state"):
            machine.guest.save("two words")
    finally:
        machine.end()


def test_only_the_end_of_a_long_console_is_quoted() -> None:
    machine = VirtualMachine()
    try:
        machine.console_log.write_text("".join(f"line {number}\n" for number in range(100_000)))
        tail = machine.console_tail(lines=2)
    finally:
        machine.end()
    assert tail.splitlines()[1:] == ["line 99998", "line 99999"]
