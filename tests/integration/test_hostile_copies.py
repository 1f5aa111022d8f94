"""qgactl cp and cat with a guest that tries to write to the host, or to fill it."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from qga.client import AgentTimeout, CopyError, GuestAgent, ProtocolError, programs
from qga.client.commands import files
from qga.client.copies import beneath, shell_files
from qga.client.copies.copying import GROWTH, Observer, copy_from, copy_to
from qga.client.copies.plain_files import PlainFiles
from qga.client.copies.port_files import send_file
from qga.client.copies.shell_files import ShellFiles
from qga.client.copies.trees import Finished, Piece, Place
from qga.client.data_ports import DataPort
from tests.integration.client_agents import AGENTS, running
from tests.integration.hostile_guest import DIRECTORY, FILE, LINK, HostileGuest, Listed
from tests.integration.qgactl_process import QGACTL, environment, qgactl
from tests.unit.client_peer import Peer

MIB = 1024 * 1024


class Host:
    """A directory for the copies, with other files around it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.target = folder / "around/DIR"
        self.target.mkdir(parents=True, mode=0o700)
        self.outside = folder / "outside"
        self.outside.mkdir(mode=0o700)
        (self.outside / "precious").write_text("precious")
        (self.outside / "precious").chmod(0o600)

    def check_outside(self) -> None:
        assert os.listdir(self.outside) == ["precious"]
        assert (self.outside / "precious").read_text() == "precious"
        assert stat.S_IMODE((self.outside / "precious").stat().st_mode) == 0o600
        assert stat.S_IMODE(self.outside.stat().st_mode) == 0o700
        assert os.listdir(self.folder / "around") == ["DIR"]
        assert stat.S_IMODE(self.target.stat().st_mode) == 0o700


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def climbing(outside: bytes) -> list[Listed]:
    names = [b"./a", b"./a/..", b"./a/../..", b"./a/../../.."]
    return [
        *(Listed(name, DIRECTORY) for name in names),
        Listed(b"./a/../../../outside", DIRECTORY | 0o777),
        Listed(b"./a/../../../outside/evil"),
    ]


def below_a_link(outside: bytes) -> list[Listed]:
    return [Listed(b"./link", LINK, target=outside), Listed(b"./link/precious")]


def a_link_and_a_directory(outside: bytes) -> list[Listed]:
    return [
        Listed(b"./link", LINK, target=outside),
        Listed(b"./link", DIRECTORY),
        Listed(b"./link/precious"),
    ]


def a_link_and_a_file(outside: bytes) -> list[Listed]:
    return [Listed(b"./link", LINK, target=outside + b"/precious"), Listed(b"./link")]


LEADING_OUT = [climbing, below_a_link, a_link_and_a_directory, a_link_and_a_file]


@pytest.mark.parametrize("listed", LEADING_OUT)
@pytest.mark.parametrize("source", [":/x", ":/x/."])
def test_nothing_is_made_outside(host: Host, listed: object, source: str) -> None:
    files = listed(os.fsencode(host.outside))  # type: ignore[operator]
    with HostileGuest(host.folder, *files) as guest:
        status, out, err = qgactl("cp", "-r", source, str(host.target), address=guest.address)
    assert (status, out) == (1, "")
    assert "the guest lists a file as" in err
    assert os.listdir(host.target) == []
    os.remove(host.folder / "hostile")
    host.check_outside()


# In a mount namespace, for a host that falls for it changes the modes of /mnt and what is there.
IN_A_NAMESPACE = """
mount -t tmpfs -o mode=1777 none /mnt && mkdir -m 700 /mnt/outside || exit
"$@"
find /mnt -printf "%m %p\\n"
"""


@pytest.mark.parametrize("source", [":/x", ":/x/."])
def test_no_absolute_name_is_believed(host: Host, source: str) -> None:
    files = [
        Listed(b".//mnt", DIRECTORY | 0o777),
        Listed(b".//mnt/outside", DIRECTORY | 0o777),
        Listed(b".//mnt/outside/FILE", FILE | 0o777),
    ]
    with HostileGuest(host.folder, *files) as guest:
        command = [*QGACTL, "cp", "-r", source, str(host.target)]
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", IN_A_NAMESPACE, "sh", *command],
            capture_output=True,
            text=True,
            env=environment(guest.address),
            check=False,
        )
    assert done.stdout == "1777 /mnt\n700 /mnt/outside\n"
    assert "the guest lists a file as '/mnt'" in done.stderr
    assert os.listdir(host.target) == []


@pytest.mark.parametrize(
    "name",
    [b"./", b"./.", b"./..", b".//", b"./a/", b"./a//b", b"./a/./b", b"./a/../b", b"../b", b"x/b"],
)
def test_a_name_that_is_none(host: Host, name: bytes) -> None:
    files = [Listed(b"./a", DIRECTORY), Listed(b"./a/", DIRECTORY), Listed(name)]
    with HostileGuest(host.folder, files[0], *(files[2:])) as guest:
        status, _, err = qgactl("cp", "-r", ":/x/.", str(host.target), address=guest.address)
    assert status == 1
    assert "the guest" in err
    assert os.listdir(host.target) == []
    host.check_outside()


def test_odd_names_and_modes_do_no_harm(host: Host) -> None:
    files = [
        Listed(b"./" + b"n" * 300),
        Listed(b"./" + b"d" * 300, DIRECTORY),
        Listed(b"./" + b"d" * 300 + b"/file"),
        Listed(b"./\x1b]0;owned\x07"),
        Listed(b"./setuid", 0o106755),
        Listed(b"./socket", stat.S_IFSOCK | 0o666),
        Listed(b"./fifo", stat.S_IFIFO | 0o666),
        Listed(b"./device", stat.S_IFBLK | 0o666),
        Listed(b"./nothing", 0o666),
        Listed(b"./.plain.qga-part"),
        Listed(b"./plain"),
    ]
    with HostileGuest(host.folder, *files) as guest:
        status, _, err = qgactl("cp", "-rp", ":/x/.", str(host.target), address=guest.address)
    assert status == 1
    assert err.count("File name too long") == 2  # of what lies in such a directory nothing is said
    assert "\x1b" not in err
    for kind in ("socket: is a socket", "fifo: is a FIFO", "device: is a block device"):
        assert kind in err
    names = [".plain.qga-part", "plain", "setuid", "\x1b]0;owned\x07"]
    assert sorted(os.listdir(host.target)) == sorted(names)
    assert stat.S_IMODE((host.target / "setuid").stat().st_mode) == 0o755
    host.check_outside()


@pytest.mark.parametrize(
    "line",
    [b"\xff 5", b"81a4 -5", b"-81a4 5", b"81a4 1e3", b"81a4 99999999999999999999", b"", b"81a4"],
)
def test_an_invalid_listing(host: Host, line: bytes) -> None:
    with HostileGuest(host.folder) as guest:
        guest._output = lambda script, words: (  # type: ignore[method-assign]
            b"1\n" + line + b"\n./a\0" if "-mindepth" in script else b"41ed 4096\n"
        )
        status, _, err = qgactl("cp", "-r", ":/x/.", str(host.target), address=guest.address)
    assert (status, err.count("\n")) == (1, 1)
    assert "Error: " not in err
    assert os.listdir(host.target) == []


def test_a_file_that_never_ends_is_not_copied(host: Host) -> None:
    with HostileGuest(host.folder, endless=True) as guest:
        status, _, err = qgactl("cp", ":/x", str(host.target), address=guest.address)
        assert guest.served < GROWTH + 4 * MIB
    assert status == 1
    assert "has grown to more than" in err
    assert os.listdir(host.target) == []


def test_a_file_that_does_not_fit_is_not_begun(host: Host) -> None:
    with HostileGuest(host.folder, endless=True, announced=2**62) as guest:
        status, _, err = qgactl("cp", ":/x", str(host.target), address=guest.address)
        assert guest.served < 4 * MIB
    assert (status, "No space left on device" in err) == (1, True)
    assert os.listdir(host.target) == []


def test_what_is_kept_of_it_for_resuming_has_a_bound(host: Host) -> None:
    with HostileGuest(host.folder, endless=True) as guest:
        arguments = ("cp", "--resume", "--max-growth", "1M", ":/x", str(host.target))
        for _ in range(2):
            assert qgactl(*arguments, address=guest.address)[0] == 1
        assert guest.served < 8 * MIB
    assert os.listdir(host.target) == [".x.qga-part"]
    assert (host.target / ".x.qga-part").stat().st_size <= MIB + 6


def test_nor_is_it_written_into_a_fifo_for_ever(host: Host) -> None:
    os.mkfifo(host.target / "fifo")
    with HostileGuest(host.folder, endless=True) as guest:
        command = [*QGACTL, "cp", "--max-growth", "1M", ":/x", f"{host.target}/fifo"]
        with subprocess.Popen(command, env=environment(guest.address)) as process:
            assert len((host.target / "fifo").read_bytes()) <= MIB + 6
            assert process.wait(60) == 1


def test_it_is_not_kept_in_memory(host: Host) -> None:
    with HostileGuest(host.folder, endless=True) as guest:
        status, out, err = qgactl("cat", "--json", "--max-size", "2M", "/x", address=guest.address)
        assert (status, out) == (1, "")
        assert "larger than 2097152 bytes, or without an end" in err
        with GuestAgent(guest.address) as agent:
            with pytest.raises(CopyError, match="has more than 1048576 bytes"):
                agent.read_file("/x", limit=MIB)
            with pytest.raises(CopyError, match="has more than 67108864 bytes"):
                agent.read_file("/x")
        assert guest.served < 80 * MIB


def test_more_than_was_asked_for(host: Host) -> None:
    with (
        HostileGuest(host.folder, endless=True) as guest,
        GuestAgent(guest.address) as agent,
        pytest.raises(ProtocolError, match="the reply is larger than 4108 bytes"),
    ):
        agent.file_read(1000, 10)


def test_more_than_was_asked_for_through_a_data_port(host: Host) -> None:
    ours, theirs = socket.socketpair()

    def send(arguments: dict[str, Any]) -> Any:
        with theirs, suppress(OSError):
            for _ in range(64 * 16):
                theirs.send(bytes(65536))
        return {"count": 1000, "sha256": "0" * 64}

    peer = Peer(host.folder / "hostile", {"qga-file-send": send})
    received = 0
    try:
        with GuestAgent(peer.address) as agent, DataPort("port", ours) as port:
            chunks = send_file(agent, port, "/x", 0, 1000, lambda: None)
            with pytest.raises(CopyError, match="more bytes come through port"):
                for chunk in chunks:
                    received += len(chunk)
    finally:
        peer.close()
    assert received <= 1000


@pytest.fixture(params=["openat2", "ENOSYS", "EPERM"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """How names below a directory are resolved: with openat2(2), or without it."""
    if request.param != "openat2":
        import ctypes

        def refuse(*arguments: object) -> int:
            ctypes.set_errno(getattr(errno, request.param))
            return -1

        monkeypatch.setattr(beneath, "system_call", refuse)
    yield request.param


@pytest.fixture(scope="module", params=AGENTS)
def address(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    with running(request.param, tmp_path_factory.mktemp("agent")) as address:
        yield address


class Swap(Observer):
    """Another user of the host, who replaces a directory by a symbolic link."""

    def __init__(self, folder: Path, outside: Path, when: str) -> None:
        self.folder = folder
        self.outside = outside
        self.when = when

    def planned(self, files: int, size: int) -> None:
        self._now("planned")

    def started(self, path: str) -> None:
        self._now("started")

    def moved(self, count: int) -> None:
        if count:
            self._now("moved")

    def _now(self, moment: str) -> None:
        if moment == self.when and not self.folder.is_symlink():
            self.folder.rename(self.folder.with_name("aside"))
            self.folder.symlink_to(self.outside)


@pytest.mark.parametrize("when", ["planned", "started", "moved"])
@pytest.mark.parametrize("into_guest", [True, False])
def test_a_directory_becomes_a_link_during_the_copy(
    host: Host, address: str, way: str, when: str, into_guest: bool
) -> None:
    source = host.folder / "source"
    (source / "sub/inner").mkdir(parents=True)
    for name in ("sub/precious", "sub/inner/file"):
        (source / name).write_text("new")
    (source / "sub/link").symlink_to("precious")
    (host.target / "sub").mkdir()
    swap = Swap(host.target / "sub", host.outside, when)
    copy = copy_to if into_guest else copy_from
    with GuestAgent(address) as agent:
        summary = copy(agent, [f"{source}/."], str(host.target), recursive=True, observer=swap)
    assert (host.target / "sub").is_symlink()
    assert summary.skipped
    host.check_outside()


@pytest.mark.parametrize("name", ["", ".", "..", "a/../b", "/etc", "a/", "a\0b"])
def test_no_way_leads_out_of_a_directory(host: Host, way: str, name: str) -> None:
    with (
        beneath.Beneath(str(host.target)) as top,
        pytest.raises(OSError, match="leads out"),
        top.parent(name),
    ):
        pass


def test_no_link_is_followed_below_a_directory(host: Host, way: str) -> None:
    (host.target / "a/b").mkdir(parents=True)
    (host.target / "link").symlink_to("a")
    (host.target / "file").touch()
    with beneath.Beneath(str(host.target)) as top:
        with top.parent("a/b/new") as (folder, name):
            assert os.fstat(folder).st_ino == (host.target / "a/b").stat().st_ino
            assert name == "new"
        for path in ("link/new", "link/b/new", "file/new"):
            with pytest.raises(NotADirectoryError), top.parent(path):
                pass
        with pytest.raises(FileNotFoundError), top.parent("none/new"):
            pass


HERE = Place("/x", "name")

SCRIPTS: dict[str, Callable[[ShellFiles], object]] = {
    "looking for its tools": lambda guest: guest.works(),
    "looking for a file": lambda guest: guest.find("/x"),
    "listing a directory": lambda guest: guest.below("/x"),
    "computing checksums": lambda guest: guest.checksums([Piece(HERE, 0, 10)]),
    "looking for files": lambda guest: guest.look([HERE]),
    "following a symbolic link": lambda guest: guest.follow(HERE),
    "making directories": lambda guest: guest.make_folders([HERE]),
    "creating files": lambda guest: guest.create([HERE], [None], False),
    "looking at an unfinished copy": lambda guest: guest.take_up(HERE),
    "making a temporary file": lambda guest: guest.write_through(HERE, stat.S_IFIFO, iter([])),
    "putting files in their places": lambda guest: guest.finish(
        [Finished(0o644, HERE, HERE, 10)], False
    ),
    "making symbolic links": lambda guest: guest.make_links([("to", HERE)]),
    "setting permissions": lambda guest: guest.set_permissions([(0o755, HERE)], False),
    "removing files": lambda guest: guest.remove([HERE]),
}
"""The hanging script by its purpose, which the error names."""


@pytest.mark.parametrize("purpose", SCRIPTS)
def test_a_script_that_never_ends(
    host: Host, monkeypatch: pytest.MonkeyPatch, purpose: str
) -> None:
    """A script that the guest reports as running for ever is killed, and the copy given up."""
    for name in ("PATIENCE", "TIDYING"):
        monkeypatch.setattr(shell_files, name, 0.1, raising=False)
    monkeypatch.setattr(programs, "GRACE", 0.1)
    with HostileGuest(host.folder) as guest, GuestAgent(guest.address) as agent:
        guest.runs_for_ever = True
        shell = ShellFiles(agent, until_it_is_too_late())
        with pytest.raises(AgentTimeout, match=f"has not finished {purpose}"):
            SCRIPTS[purpose](shell)
        assert guest.signals == ["KILL"]


class Impatient(Observer):
    def __init__(self) -> None:
        self._tick = until_it_is_too_late()

    def moved(self, count: int) -> None:
        self._tick()


def until_it_is_too_late(seconds: float = 20) -> Callable[[], None]:
    deadline = time.monotonic() + seconds

    def tick() -> None:
        assert time.monotonic() < deadline, "it goes on for ever"

    return tick


@pytest.mark.parametrize("name", AGENTS)
def test_a_fifo_of_the_guest_that_nobody_reads(
    host: Host, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script that waits for a reader is gone, and so is its temporary file."""
    source, fifo = host.folder / "source", host.folder / "fifo"
    source.write_bytes(b"content")
    os.mkfifo(fifo)
    monkeypatch.setenv("TMPDIR", str(host.target))
    monkeypatch.setattr(shell_files, "PATIENCE", 3.0, raising=False)
    with running(name, host.folder) as address, GuestAgent(address, 30) as agent:
        with pytest.raises(AgentTimeout, match="writing into a device or FIFO"):
            copy_to(agent, [str(source)], str(fifo), observer=Impatient())
        assert os.listdir(host.target) == []
        assert not processes_that_name(fifo.name, host.folder)


def processes_that_name(*words: object) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            line = path.read_bytes().decode(errors="replace")
            if "cat -- " in line and all(str(word) in line for word in words):
                found.append(line)
    return found


@pytest.mark.parametrize("kind", [ShellFiles, PlainFiles])
def test_a_byte_now_and_then(
    host: Host, monkeypatch: pytest.MonkeyPatch, kind: type[ShellFiles | PlainFiles]
) -> None:
    """A guest that always answers, but transfers almost nothing, is given up."""
    monkeypatch.setattr(kind, "slack", 0.2, raising=False)
    monkeypatch.setattr(files, "SLACK", 0.2, raising=False)
    with HostileGuest(host.folder, endless=True) as guest, GuestAgent(guest.address) as agent:
        guest.dawdles = 0.02
        side = kind(agent, until_it_is_too_late())
        with pytest.raises(AgentTimeout, match="bytes per second"):
            for _ in side.chunks(HERE, 0, 0):
                pass
        with pytest.raises(AgentTimeout, match="bytes per second"):
            side.write(HERE, 0, 0, iter([b"x" * 100_000]))


def test_a_file_that_is_written_and_read_slowly_is_not_a_fault(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest may catch up after a delay, and our own delays do not count."""
    monkeypatch.setattr(ShellFiles, "slack", 0.2)
    with HostileGuest(host.folder, endless=True) as guest, GuestAgent(guest.address) as agent:
        chunks = ShellFiles(agent).chunks(HERE, 0, 0)
        for _ in range(3):
            assert next(chunks)
            time.sleep(0.3)
        chunks.close()
