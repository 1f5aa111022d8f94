"""qgactl cp and cat against real agents: ours, and the original."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from qga.client import GuestAgent
from qga.client.copies.copying import Observer, copy_to
from qga.client.copies.trees import PIECE
from tests.integration.agent_process import wait_for
from tests.integration.client_agents import AGENTS, running
from tests.integration.data_ports import NAME, with_port
from tests.integration.qgactl_process import ENDING, QGACTL, Result, environment, qgactl
from tests.integration.terminals import Terminal

Copy = Callable[..., Result]


@pytest.fixture(scope="module", params=AGENTS)
def address(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    with running(request.param, tmp_path_factory.mktemp("agent")) as address:
        yield address


@pytest.fixture
def cp(address: str) -> Copy:
    def copy(*arguments: object) -> Result:
        return qgactl("cp", *map(str, arguments), address=address)

    return copy


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory in place of the host's."""
    path = tmp_path / "here"
    path.mkdir()
    return path


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A directory in place of the guest's: the agent runs on this machine."""
    path = tmp_path / "there"
    path.mkdir()
    return path


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_file_into_a_directory_and_under_another_name(cp: Copy, here: Path, there: Path) -> None:
    source = here / "source"
    source.write_bytes(bytes(range(256)) * 5000)
    source.chmod(0o640)
    assert cp(source, f"guest:{there}") == (0, "", "")
    assert cp(source, f":{there}/other") == (0, "", "")
    assert names(there) == ["other", "source"]
    for copy in (there / "source", there / "other"):
        assert copy.read_bytes() == source.read_bytes()
        assert copy.stat().st_mode & 0o777 == 0o640
    assert cp(f":{there}/source", f"guest:{there}/other", here) == (0, "", "")
    assert names(here) == ["other", "source"]
    assert (here / "other").read_bytes() == source.read_bytes()


def test_what_was_there_is_replaced(cp: Copy, here: Path, there: Path) -> None:
    (here / "file").write_text("new")
    (there / "file").write_text("an older and longer one")
    assert cp(here / "file", f":{there}/file") == (0, "", "")
    assert (there / "file").read_text() == "new"
    (here / "file").write_text("an older and longer one")
    assert cp(f":{there}/file", here / "file") == (0, "", "")
    assert (here / "file").read_text() == "new"


def test_an_empty_file(cp: Copy, here: Path, there: Path) -> None:
    (here / "empty").touch()
    assert cp(here / "empty", f":{there}/") == (0, "", "")
    assert cp(f":{there}/empty", here / "back") == (0, "", "")
    assert (here / "back").read_bytes() == b""


def tree(folder: Path) -> Path:
    """A directory with files of all kinds."""
    top = folder / "top"
    (top / "sub/deep").mkdir(parents=True)
    (top / "empty").mkdir()
    for name in ("plain", "-f", "a b", "new\nline", "'quotes\" $x `y` \\", "ä漢", "*"):
        (top / "sub" / name).write_text(f"this is {name!r}")
    (top / "sub/deep/program").write_bytes(os.urandom(3_000_000))
    (top / "sub/deep/program").chmod(0o755)
    (top / "sub/link").symlink_to("deep/program")
    (top / "dangling\n").symlink_to("no\nwhere")
    (top / "sub/deep").chmod(0o700)
    return top


def differences(one: Path, other: Path) -> str:
    argv = ["diff", "-r", "--no-dereference", str(one), str(other)]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


def test_directories_both_ways(cp: Copy, here: Path, there: Path) -> None:
    top = tree(here)
    assert cp("-r", top, f":{there}") == (0, "", "")
    assert differences(top, there / "top") == ""
    assert cp("-r", f":{there}/top", here / "back") == (0, "", "")
    assert differences(top, here / "back") == ""
    for path in ("top/sub/deep", "back/sub/deep"):
        assert (here / path).stat().st_mode & 0o777 == 0o700
        assert (here / path / "program").stat().st_mode & 0o777 == 0o755
    assert cp("-r", f":{there}/top", here / "back") == (0, "", "")  # a folder by now
    assert differences(top, here / "back/top") == ""


def test_what_cannot_be_copied_is_reported(cp: Copy, here: Path, there: Path) -> None:
    folder = here / "folder"
    folder.mkdir()
    (folder / "file").touch()
    os.mkfifo(folder / "fifo")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).touch()
    status, out, err = cp("-r", folder, f":{there}")
    assert (status, out) == (1, "")
    assert sorted(err.splitlines()) == [
        f"qgactl: {folder}/\\udcff: its name is not UTF-8, which the agent's JSON cannot carry",
        f"qgactl: {folder}/fifo: is a FIFO",
    ]
    assert names(there / "folder") == ["file"]
    assert cp(folder, f":{there}")[0::2] == (
        1,
        f"qgactl: {folder}: is a directory (use -r)\n",
    )
    assert cp(here / "none", f":{there}")[0::2] == (
        1,
        f"qgactl: {here}/none: no such file or directory\n",
    )
    assert cp(f":{there}/none", here)[0::2] == (
        1,
        f"qgactl: :{there}/none: no such file or directory\n",
    )


def test_a_destination_that_is_not_there(cp: Copy, here: Path, there: Path, address: str) -> None:
    (here / "file").touch()
    complaint = "no such directory\n"
    assert cp(here / "file", f":{there}/none/")[0::2] == (1, f"qgactl: :{there}/none/: {complaint}")
    assert cp(here / "file", here / "file", f":{there}/none")[2].endswith(complaint)
    status, _, err = cp(here / "file", f":{there}/none/file")
    assert status == 1
    assert "No such file or directory" in err
    status, _, err = cp(f":{here}/file", there / "none/file")
    assert (status, err.count("\n")) == (1, 1)
    assert "No such file or directory" in err


def test_a_directory_in_the_way_of_a_file(cp: Copy, here: Path, there: Path) -> None:
    (here / "top").mkdir()
    (here / "top/x").touch()
    (there / "top/x").mkdir(parents=True)
    for arguments in ((here / "top", f":{there}"), (f":{here}/top", there)):
        status, _, err = cp("-r", *arguments)
        assert (status, err.count("\n")) == (1, 1)
        assert names(there / "top") == ["x"]


def test_the_summary_for_programs(address: str, here: Path, there: Path) -> None:
    top = tree(here)
    os.mkfifo(top / "fifo")
    arguments = ("--json", "cp", "-r", str(top), f":{there}")
    status, out, _ = qgactl(*arguments, address=address)
    summary = json.loads(out)
    assert summary.pop("seconds") >= 0
    assert summary.pop("bytes") > 3_000_000
    assert (status, summary) == (
        1,
        {
            "files": 8,
            "folders": 4,
            "links": 2,
            "unchanged": 0,
            "port": None,
            "skipped": [{"path": f"{top}/fifo", "reason": "is a FIFO"}],
        },
    )


def test_a_bar_on_a_terminal(address: str, here: Path, there: Path) -> None:
    (here / "[red]file").write_bytes(bytes(2_000_000))
    argv = [*QGACTL, "cp", str(here / "[red]file"), f":{there}/copy"]
    env = {**environment(address), "TERM": "xterm", "COLUMNS": "100"}
    with Terminal(argv, env, columns=100) as screen:
        screen.expect("[red]file")
        screen.expect("1.9 of 1.9 MiB")
        assert screen.wait() == 0
    assert (there / "copy").stat().st_size == 2_000_000


def test_resuming_continues_where_the_pieces_agree(
    cp: Copy, address: str, here: Path, there: Path
) -> None:
    data = os.urandom(PIECE * 2 + 5000)
    (here / "file").write_bytes(data)
    part = there / ".file.qga-part"
    part.write_bytes(data[: PIECE + 1000] + b"damaged")
    part.chmod(0o600)
    before = part.stat().st_ino
    seen = Moves()
    with GuestAgent(address) as agent:
        summary = copy_to(agent, [str(here / "file")], str(there), resume=True, observer=seen)
    assert (summary.files, summary.bytes) == (1, len(data))
    assert seen.counts[0] == PIECE
    assert sum(seen.counts) == len(data)
    assert (there / "file").read_bytes() == data
    assert (there / "file").stat().st_ino == before
    assert names(there) == ["file"]
    status, out, _ = qgactl(
        "--json", "cp", "--resume", str(here / "file"), f":{there}", address=address
    )
    summary_of_second = json.loads(out)
    assert (status, summary_of_second["files"], summary_of_second["unchanged"]) == (0, 0, 1)
    (here / ".back.qga-part").write_bytes(data[:PIECE])
    assert cp("--resume", f":{there}/file", here / "back") == (0, "", "")
    assert (here / "back").read_bytes() == data
    assert names(here) == ["back", "file"]


class Moves(Observer):
    """Records how many bytes are copied at a time."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def moved(self, count: int) -> None:
        if count:
            self.counts.append(count)


@pytest.mark.parametrize("into_guest", [True, False])
@pytest.mark.parametrize("number", ENDING)
def test_an_interrupted_copy_leaves_nothing(
    address: str, here: Path, there: Path, into_guest: bool, number: int
) -> None:
    source, target = (here, there) if into_guest else (there, here)
    with (source / "large").open("wb") as file:
        file.truncate(2 * 1024**3)
    sides = (f"{source}/large", f":{target}") if into_guest else (f":{source}/large", str(target))
    process = subprocess.Popen(
        [*QGACTL, "cp", *sides],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(address),
    )
    wait_for(lambda: names(target), "the copy to begin")
    process.send_signal(number)
    assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == 128 + number
    assert names(target) == []
    assert not holders(source / "large")


def holders(path: Path) -> list[str]:
    """The descriptors of all processes that have this file open."""
    links = (link for process in Path("/proc").glob("[0-9]*") for link in opened_by(process))
    return [str(link) for link in links if points_to(link, path)]


def opened_by(process: Path) -> list[Path]:
    try:
        return list((process / "fd").iterdir())
    except OSError:
        return []


def points_to(link: Path, path: Path) -> bool:
    try:
        return os.readlink(link) == str(path)
    except OSError:
        return False


def test_cat(address: str, there: Path) -> None:
    data = os.urandom(3_000_000)
    (there / "one").write_bytes(data)
    (there / "two").write_bytes(b"two\n")
    done = subprocess.run(
        [*QGACTL, "cat", str(there / "one"), str(there / "two")],
        capture_output=True,
        env=environment(address),
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, data + b"two\n", b"")
    status, out, err = qgactl("--json", "cat", str(there / "two"), address=address)
    encoded = base64.b64encode(b"two\n").decode()
    assert (status, json.loads(out), err) == (
        0,
        [{"path": f"{there}/two", "buf-b64": encoded}],
        "",
    )


def test_cat_of_what_is_not_there(address: str, there: Path) -> None:
    status, out, err = qgactl("cat", f"{there}/none", address=address)
    assert (status, out) == (1, "")
    assert err.startswith(f"qgactl: {address}: guest-file-open: ")
    assert err.endswith("No such file or directory\n")


def test_cat_into_what_reads_no_further(address: str, there: Path) -> None:
    with (there / "large").open("wb") as file:
        file.truncate(1024**3)
    process = subprocess.Popen(
        [*QGACTL, "cat", str(there / "large")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(address),
    )
    assert process.stdout and process.stderr
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(60) == 128 + signal.SIGPIPE
    assert process.stderr.read() == b""
    process.stderr.close()
    assert not holders(there / "large")


def test_a_data_port_that_is_not_there(address: str, here: Path, there: Path) -> None:
    (here / "file").write_bytes(bytes(1_000_000))
    arguments = ("cp", str(here / "file"), f":{there}")
    assert qgactl("--data-port", "x", *arguments, address=address) == (
        2,
        "",
        "qgactl: invalid value 'x' for --data-port: use NAME=SOCKET (see qgactl --help)\n",
    )
    complaint = "--data-port x=/nonexistent: there is no socket at this path"
    for status, _, err in (
        qgactl("--data-port", "x=/nonexistent", *arguments, address=address),
        qgactl("--data-port", "x=/nonexistent", "ping", address=address),
        qgactl(*arguments, address=address, QGA_DATA_PORT="x=/nonexistent"),
        qgactl("exec", "true", address=address, QGA_DATA_PORT="x=/nonexistent"),
    ):
        assert status in (2, 125)
        assert complaint in err
    assert names(there) == []
    assert qgactl("ping", address=address, QGA_DATA_PORT="x=/nonexistent")[0] == 0
    assert qgactl("--data-port", "x=", *arguments, address=address) == (0, "", "")


def test_a_data_port_that_the_guest_does_not_have(tmp_path: Path) -> None:
    other = socket.socket(socket.AF_UNIX)
    other.bind(str(tmp_path / "other"))
    (tmp_path / "file").write_bytes(bytes(1_000_000))
    with with_port(tmp_path) as (agent, _), other:
        for sides in (
            (f":{tmp_path}/file", f"{tmp_path}/copy"),
            (f"{tmp_path}/file", f":{tmp_path}/copy"),
        ):
            status, _, err = qgactl(
                *("--data-port", f"x={tmp_path}/other", "cp", *sides), address=f"unix:{agent.path}"
            )
            assert status == 3
            assert err == f"qgactl: x: the guest has no such port; it has {NAME}\n"
            assert not list(tmp_path.glob("*copy*")) + list(tmp_path.glob(".*"))
