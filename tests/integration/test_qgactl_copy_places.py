"""How qgactl cp treats files at its destination, on the host and in the guest.

The agents run on this machine, so each test runs in both directions.
"""

from __future__ import annotations

import os
import pty
import stat
import subprocess
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from qga.client.copies.trees import PIECE
from tests.integration.client_agents import AGENTS, running
from tests.integration.qgactl_process import QGACTL, Result, environment

NOBODY = 65534
SHORT = b"127.0.0.1 localhost\n"


@pytest.fixture(scope="module", params=AGENTS)
def address(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    with running(request.param, tmp_path_factory.mktemp("agent")) as address:
        yield address


class Copying:
    """qgactl cp in one direction, from the directory `source` to the directory `target`."""

    def __init__(self, address: str, folder: Path, into_guest: bool) -> None:
        self.address = address
        self.into_guest = into_guest
        self.source = folder / "source"
        self.target = folder / "target"
        self.source.mkdir()
        self.target.mkdir()
        self.file = self.source / "file"
        self.file.write_bytes(SHORT)

    def __call__(self, *options: str, source: str = "file", target: str = "file") -> Result:
        done = subprocess.run(
            self.command(*options, source=source, target=target),
            capture_output=True,
            text=True,
            env=environment(self.address),
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def command(self, *options: str, source: str = "file", target: str = "file") -> list[str]:
        sides = [f"{self.source}/{source}", f"{self.target}/{target}"]
        sides[self.into_guest] = f"guest:{sides[self.into_guest]}"
        return [*QGACTL, "cp", *options, *sides]

    def names(self) -> list[str]:
        return sorted(os.listdir(self.target))


@pytest.fixture(params=["into the guest", "out of the guest"])
def cp(request: pytest.FixtureRequest, address: str, tmp_path: Path) -> Copying:
    return Copying(address, tmp_path, request.param == "into the guest")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_link_is_written_through(cp: Copying) -> None:
    real = cp.target / "real"
    real.write_text("before")
    real.chmod(0o600)
    (cp.target / "file").symlink_to("real")
    assert cp() == (0, "", "")
    assert os.readlink(cp.target / "file") == "real"
    assert (real.read_bytes(), mode_of(real)) == (SHORT, 0o600)
    assert cp.names() == ["file", "real"]


def test_a_link_is_written_through_in_a_directory_that_is_named(cp: Copying) -> None:
    (cp.target / "real").write_text("before")
    (cp.target / "file").symlink_to("real")
    assert cp(target="") == (0, "", "")
    assert (cp.target / "file").is_symlink()
    assert (cp.target / "real").read_bytes() == SHORT


@pytest.mark.parametrize("leads_to", ["missing", "file", "other"])
def test_a_link_that_leads_nowhere(cp: Copying, leads_to: str) -> None:
    (cp.target / "file").symlink_to(leads_to)
    (cp.target / "other").symlink_to("file")
    status, _, err = cp()
    assert (status, err.count("\n")) == (1, 1)
    assert f"{cp.target}/file: " in err
    assert os.readlink(cp.target / "file") == leads_to
    assert cp.names() == ["file", "other"]


def test_a_link_of_another_user_in_a_shared_directory(cp: Copying, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    cp.target.chmod(0o1777)
    (cp.target / "file").symlink_to(precious)
    os.lchown(cp.target / "file", NOBODY, NOBODY)
    status, _, err = cp()
    assert status == 1
    assert "is another user's symbolic link" in err
    assert precious.read_text() == "precious"
    assert (cp.target / "file").is_symlink()


@pytest.mark.parametrize("make", [os.mkfifo, Path.touch], ids=["a FIFO", "a file"])
def test_what_another_user_has_put_into_a_shared_directory(
    cp: Copying, make: Callable[[Path], None]
) -> None:
    """He would read the copy."""
    cp.target.chmod(0o1777)
    trap = cp.target / "file"
    make(trap)
    os.chown(trap, NOBODY, NOBODY)
    reading = os.open(trap, os.O_RDONLY | os.O_NONBLOCK)
    try:
        status, _, err = cp()
        assert os.read(reading, 100) == b""
    finally:
        os.close(reading)
    assert (status, err.count("\n")) == (1, 1)
    assert f"{trap}: is another user's " in err
    assert trap.lstat().st_size == 0
    assert cp.names() == ["file"]


def test_a_device_is_not_written_through_a_link(cp: Copying) -> None:
    master, slave = pty.openpty()
    (cp.target / "file").symlink_to(os.ttyname(slave))
    try:
        tty.setraw(slave)
        status, _, err = cp()
        assert status == 1
        assert f"is a symbolic link to {os.ttyname(slave)}, a character device" in err or (
            "a character device: name that" in err
        )
        os.set_blocking(master, False)
        with pytest.raises(BlockingIOError):
            os.read(master, 1)
    finally:
        os.close(master)
        os.close(slave)
    assert (cp.target / "file").is_symlink()


def test_a_device_that_is_named(cp: Copying) -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    device = os.ttyname(slave)
    try:
        assert cp(target=os.path.relpath(device, cp.target)) == (0, "", "")
        assert os.read(master, 1000) == SHORT
    finally:
        os.close(master)
        os.close(slave)


def test_a_device_in_the_directory_that_is_named(cp: Copying) -> None:
    os.mknod(cp.target / "file", stat.S_IFCHR | 0o600, os.makedev(1, 3))  # as /dev/null
    status, _, err = cp(target="")
    assert status == 1
    assert "a character device of this name is in the way" in err
    assert stat.S_ISCHR((cp.target / "file").stat().st_mode)
    assert cp.names() == ["file"]


def test_a_device_node_is_not_replaced(cp: Copying) -> None:
    os.mknod(cp.target / "file", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    assert cp() == (0, "", "")
    assert stat.S_ISCHR((cp.target / "file").stat().st_mode)
    assert cp.names() == ["file"]


@pytest.mark.parametrize("through_link", [False, True])
def test_a_fifo(cp: Copying, through_link: bool) -> None:
    data = os.urandom(300_000)
    cp.file.write_bytes(data)
    os.mkfifo(cp.target / "fifo")
    (cp.target / "link").symlink_to("fifo")
    name = "link" if through_link else "fifo"
    command = cp.command(target=name)
    with subprocess.Popen(command, env=environment(cp.address)) as process:
        assert (cp.target / "fifo").read_bytes() == data  # which waits for one that writes
        assert process.wait(60) == 0
    assert stat.S_ISFIFO((cp.target / "fifo").lstat().st_mode)
    assert cp.names() == ["fifo", "link"]


def test_a_socket_is_left_alone(cp: Copying) -> None:
    os.mknod(cp.target / "file", stat.S_IFSOCK | 0o600)
    status, _, err = cp()
    assert (status, "a socket of this name is in the way" in err) == (1, True)
    assert cp.names() == ["file"]


def test_in_a_tree_nothing_is_written_through(cp: Copying, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    for name in ("fifo", "link", "other"):
        (cp.source / name).write_text("new")
    os.mkfifo(cp.target / "fifo")
    (cp.target / "link").symlink_to(precious)
    status, _, err = cp("-r", source=".", target="")
    assert status == 1
    assert "fifo: a FIFO of this name is in the way" in err
    assert "link: a symbolic link of this name is in the way" in err
    assert precious.read_text() == "precious"
    assert stat.S_ISFIFO((cp.target / "fifo").stat().st_mode)
    assert (cp.target / "link").is_symlink()
    assert (cp.target / "other").read_text() == "new"


def test_in_a_tree_no_directory_is_entered_by_a_link(cp: Copying, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    (cp.source / "sub/deep").mkdir(parents=True)
    (cp.source / "sub/deep/file").write_text("new")
    (cp.target / "sub").symlink_to(outside)
    status, _, err = cp("-r", source=".", target="")
    assert (status, err.count("\n")) == (1, 1)
    assert f"{cp.target}/sub: a symbolic link of this name is in the way" in err
    assert os.listdir(outside) == []
    assert mode_of(outside) == 0o700
    assert cp.names() == ["file", "sub"]


def test_a_directory_that_is_named_may_be_a_link(cp: Copying, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    (cp.target / "link").symlink_to(real)
    assert cp("-r", source=".", target="link") == (0, "", "")
    assert (real / "file").read_bytes() == SHORT
    assert mode_of(real) == 0o700


def test_a_file_keeps_its_owner_and_mode_and_is_replaced_at_once(cp: Copying) -> None:
    there = cp.target / "file"
    there.write_text("before")
    os.chown(there, NOBODY, NOBODY)
    there.chmod(0o600)
    cp.file.chmod(0o644)
    with there.open() as before:
        assert cp() == (0, "", "")
        assert before.read() == "before"  # as whoever has it open goes on seeing it
    now = there.stat()
    assert (there.read_bytes(), mode_of(there)) == (SHORT, 0o600)
    assert (now.st_uid, now.st_gid) == (NOBODY, NOBODY)
    assert cp("-p") == (0, "", "")
    assert (mode_of(there), there.stat().st_uid) == (0o644, NOBODY)


def test_set_user_id_is_neither_copied_nor_kept(cp: Copying) -> None:
    cp.file.chmod(0o4755)
    assert cp("-p", target="new") == (0, "", "")
    assert mode_of(cp.target / "new") == 0o755
    (cp.target / "file").touch()
    (cp.target / "file").chmod(0o6755)
    assert cp() == (0, "", "")
    assert mode_of(cp.target / "file") == 0o755


def test_a_directory_that_was_there_keeps_its_mode(cp: Copying) -> None:
    cp.source.chmod(0o755)
    cp.target.chmod(0o700)
    (cp.source / "old").mkdir(mode=0o755)
    (cp.target / "old").mkdir(mode=0o700)
    (cp.source / "new").mkdir(mode=0o755)
    assert cp("-rp", source=".", target="") == (0, "", "")
    assert mode_of(cp.target) == 0o700
    assert mode_of(cp.target / "old") == 0o700
    assert mode_of(cp.target / "new") == 0o755


@pytest.mark.parametrize(
    ("options", "modes"), [("-r", [0o700, 0o600, 0o700]), ("-rp", [0o775, 0o664, 0o775])]
)
def test_the_umask(tmp_path: Path, address: str, options: str, modes: list[int]) -> None:
    cp = Copying(address, tmp_path, into_guest=False)
    tree = cp.source / "tree"
    tree.mkdir()
    (tree / "program").touch()
    (tree / "text").touch()
    for path, mode in ((tree, 0o775), (tree / "program", 0o775), (tree / "text", 0o664)):
        path.chmod(mode)
    done = subprocess.run(
        ["sh", "-c", 'umask 077; exec "$@"', "sh", *cp.command(options, source="tree", target="")],
        env=environment(address),
        check=False,
    )
    assert done.returncode == 0
    copies = [cp.target / name for name in ("tree", "tree/text", "tree/program")]
    assert [mode_of(path) for path in copies] == modes


def linked(part: Path, other: Path) -> None:
    part.symlink_to(other)


def linked_twice(part: Path, other: Path) -> None:
    os.link(other, part)


def of_another_user(part: Path, other: Path) -> None:
    part.write_bytes(other.read_bytes())
    os.chown(part, NOBODY, NOBODY)


def open_to_all(part: Path, other: Path) -> None:
    part.write_bytes(other.read_bytes())
    part.chmod(0o666)


def fifo(part: Path, other: Path) -> None:
    os.mkfifo(part)


def directory(part: Path, other: Path) -> None:
    part.mkdir()


@pytest.mark.parametrize(
    "plant", [linked, linked_twice, of_another_user, open_to_all, fifo, directory]
)
def test_a_part_that_may_not_be_ours_is_not_taken_up(
    cp: Copying, tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    data = os.urandom(PIECE + 1000)
    cp.file.write_bytes(data)
    other = tmp_path / "other"
    other.write_bytes(data[:PIECE])
    part = cp.target / ".file.qga-part"
    plant(part, other)
    before = part.lstat()
    status, out, err = cp("--resume")
    assert (status, out, err.count("\n")) == (0, "", 1)
    assert f"{part}: not resumed: " in err
    assert (cp.target / "file").read_bytes() == data
    assert other.read_bytes() == data[:PIECE]
    assert part.lstat().st_ino == before.st_ino
    assert part.lstat().st_size == before.st_size
    assert cp.names() == [".file.qga-part", "file"]


def test_two_sources_of_one_name(cp: Copying) -> None:
    (cp.source / "sub").mkdir()
    (cp.source / "sub/file").write_text("other")
    colon = "" if cp.into_guest else ":"
    command = cp.command(target="")
    command.insert(-1, f"{colon}{cp.source}/sub/file")
    done = subprocess.run(
        command, env=environment(cp.address), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "would overwrite another copied file" in done.stderr
    assert (cp.target / "file").read_bytes() == SHORT


def test_a_name_as_long_as_names_may_be(cp: Copying) -> None:
    name = "n" * 255
    (cp.source / name).write_bytes(SHORT)
    assert cp("-r", source=".", target="") == (0, "", "")
    assert (cp.target / name).read_bytes() == SHORT


def test_standard_output_that_is_a_pipe(address: str, tmp_path: Path) -> None:
    cp = Copying(address, tmp_path, into_guest=False)
    (cp.target / "stdout").symlink_to("/proc/self/fd/1")  # as /dev/stdout, which is not risked
    command = [*QGACTL, "cp", f":{cp.file}", f"{cp.target}/stdout"]
    done = subprocess.run(
        command,
        env=environment(address),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, SHORT, b"")


def test_a_fifo_that_nobody_reads_is_waited_for(address: str, tmp_path: Path) -> None:
    cp = Copying(address, tmp_path, into_guest=False)
    os.mkfifo(cp.target / "file")
    with subprocess.Popen(cp.command(), env=environment(address)) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        assert (cp.target / "file").read_bytes() == SHORT
        assert process.wait(60) == 0
    assert cp.names() == ["file"]
