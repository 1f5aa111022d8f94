"""guest-file-* with real files and links."""

from __future__ import annotations

import base64
import os
import random
import stat
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.differences import differs
from tests.integration.agent_process import AgentProcess, Client, Refused, listening, refused
from tests.integration.guest_file import File

MIB = 1024 * 1024
MAX_READ = 48 * MIB
READING = ("r", "rb", "r+", "rb+", "r+b")
WRITING = ("w", "wb", "w+", "wb+", "w+b")
APPENDING = ("a", "ab", "a+", "ab+", "a+b")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def can(attempt: Any, *arguments: Any) -> bool:
    """Whether the handle permits it; any other error fails the test."""
    try:
        attempt(*arguments)
    except Refused as error:
        assert "Bad file descriptor" in str(error)
        return False
    return True


@pytest.mark.parametrize("mode", [*READING, *WRITING, *APPENDING])
def test_modes(client: Client, path: Path, mode: str) -> None:
    path.write_bytes(b"before")
    file = File(client, path, mode)
    assert path.read_bytes() == (b"" if mode in WRITING else b"before")
    assert can(file.read) == (mode in READING or "+" in mode)
    file.seek(0)
    assert can(file.write, b"XY") == (mode not in READING or "+" in mode)
    file.close()
    assert path.read_bytes() == (
        b"XY"
        if mode in WRITING
        else b"beforeXY"
        if mode in APPENDING
        else b"XYfore"
        if "+" in mode
        else b"before"
    )


@pytest.mark.parametrize("mode", [*READING, *WRITING, *APPENDING])
def test_modes_of_a_file_that_is_missing(client: Client, path: Path, mode: str) -> None:
    if mode in READING:
        assert client.refusal("guest-file-open", path=str(path), mode=mode) == (
            f"failed to open file '{path}' (mode: '{mode}'): No such file or directory"
        )
        assert not path.exists()
    else:
        File(client, path, mode).close()
        assert path.read_bytes() == b""


@pytest.mark.parametrize("mode", ["", "x", "rw", "+r", "r++", "rbb", "b", "R", "wx", "r,ccs=UTF-8"])
def test_an_unknown_mode_is_refused_first(client: Client, mode: str) -> None:
    refusal = client.refusal("guest-file-open", path="/nonexistent/file", mode=mode)
    assert refusal == f"invalid file open mode '{mode}'"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/nonexistent/file", "No such file or directory"),
        ("/etc/passwd/below", "Not a directory"),
        ("/etc", "Is a directory"),
        ("", "No such file or directory"),
        ("/tmp/a\0b/c", "No such file or directory"),
        ("/" + "x" * 300, "File name too long"),
        ("/dev/tty", "No such device or address"),
    ],
)
def test_what_cannot_be_opened_is_named(client: Client, path: str, reason: str) -> None:
    assert client.refusal("guest-file-open", path=path, mode="w") == (
        f"failed to open file '{path}' (mode: 'w'): {reason}"
    )


@pytest.mark.parametrize("mode", ["w", "a", "r+", "w+", "a+"])
@pytest.mark.parametrize("target", ["target", "missing"])
def test_a_link_is_not_followed_for_writing(
    client: Client, path: Path, tmp_path: Path, target: str, mode: str
) -> None:
    (tmp_path / "target").write_text("old content")
    path.symlink_to(target)
    assert client.refusal("guest-file-open", path=str(path), mode=mode) == (
        f"failed to open file '{path}' (mode: '{mode}'): Too many levels of symbolic links: "
        f"symbolic link to '{target}'; writing does not follow links unless [files] "
        "follow-symlinks=true is set in the agent's configuration"
    )
    assert (tmp_path / "target").read_text() == "old content"
    assert not (tmp_path / "missing").exists()


@differs("no-file-of-others-in-tmp")
@pytest.mark.parametrize("rules", ["", "[files]\nread=/\nwrite=/\n"])
@pytest.mark.parametrize("mode", ["w", "a", "w+"])
@pytest.mark.parametrize("make", [os.mkfifo, Path.touch], ids=["a FIFO", "a file"])
def test_what_another_user_has_put_into_a_shared_directory(
    tmp_path: Path, make: Callable[[Path], None], mode: str, rules: str
) -> None:
    """He would read what is written, also where fs.protected_regular=0."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    own, trap = shared / "own", shared / "trap"
    for path in (own, trap):
        make(path)
        if path.is_file():
            path.write_text("old")
    os.chown(trap, 65534, 65534)
    reading = [os.open(path, os.O_RDONLY | os.O_NONBLOCK) for path in (own, trap)]
    with listening(tmp_path, config=rules) as agent, agent.connect() as client:
        assert client.refusal("guest-file-open", path=str(trap), mode=mode) == (
            f"failed to open file '{trap}' (mode: '{mode}'): Permission denied: another user's "
            "file in a world-writable directory"
        )
        File(client, own, mode).write(b"new")
    kept = b"old" if trap.is_file() else b""
    assert os.read(reading[1], 10) == kept
    assert os.read(reading[0], 10) == (kept if mode == "a" else b"") + b"new"
    for fd in reading:
        os.close(fd)


def test_a_link_is_followed_for_reading(client: Client, path: Path, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("content")
    path.symlink_to("target")
    assert File(client, path).read() == (b"content", True)


def test_a_link_to_a_directory_is_followed_even_for_writing(
    client: Client, path: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    path.symlink_to("folder")
    File(client, path / "new", "w").write(b"x")
    assert (tmp_path / "folder" / "new").read_text() == "x"


def test_links_are_followed_for_writing_where_that_is_configured(
    tmp_path: Path, path: Path
) -> None:
    (tmp_path / "target").write_text("old content")
    path.symlink_to("target")
    dangling = tmp_path / "dangling"
    dangling.symlink_to("missing")
    config = "[files]\nfollow-symlinks=true\n"
    with listening(tmp_path, config=config) as agent, agent.connect() as client:
        File(client, path, "w").write(b"new")
        for mode in ("w", "a"):
            refusal = client.refusal("guest-file-open", path=str(dangling), mode=mode)
            assert refusal.endswith("No such file or directory: symbolic link to a missing file")
    assert (tmp_path / "target").read_text() == "new"
    assert path.is_symlink()
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(("umask", "expected"), [(0, 0o644), (0o022, 0o644), (0o077, 0o600)])
def test_permissions_of_a_new_file(tmp_path: Path, umask: int, expected: int) -> None:
    with listening(tmp_path, umask=umask) as agent, agent.connect() as client:
        File(client, tmp_path / "new", "w")
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == expected


def test_permissions_of_an_old_file_stay(client: Client, path: Path) -> None:
    path.write_text("")
    path.chmod(0o4751)
    File(client, path, "w").write(b"")
    assert stat.S_IMODE(path.stat().st_mode) == 0o4751


def test_reading_to_the_end(client: Client, path: Path) -> None:
    path.write_bytes(b"0123456789")
    file = File(client, path)
    assert file.read(0) == (b"", False)
    assert file.read(4) == (b"0123", False)
    assert file.read(6) == (b"456789", False), "to the end, and not short"
    assert file.read(0) == (b"", False)
    assert file.read(1) == (b"", True)
    assert file.read(1) == (b"", True)
    file.seek(8)
    assert file.read(3) == (b"89", True)
    with path.open("ab") as out:
        out.write(b"more")
    assert file.read(100) == (b"more", True), "an end is not for ever"


def test_a_read_is_of_four_kibibytes_by_default(client: Client, path: Path) -> None:
    data = random.Random(7).randbytes(5000)
    path.write_bytes(data)
    file = File(client, path)
    assert file.read() == (data[:4096], False)
    assert file.read() == (data[4096:], True)


def test_a_read_of_the_greatest_size(client: Client, path: Path) -> None:
    data = random.Random(8).randbytes(MAX_READ + 10)
    path.write_bytes(data)
    file = File(client, path)
    assert file.read(MAX_READ) == (data[:MAX_READ], False)
    assert file.read(MAX_READ) == (data[MAX_READ:], True)
    assert file.read(MAX_READ) == (b"", True)


@pytest.mark.parametrize("count", [-1, MAX_READ + 1, -(2**63), 2**63 - 1])
def test_a_read_of_an_impossible_size_is_refused(client: Client, path: Path, count: int) -> None:
    path.write_bytes(b"0123")
    file = File(client, path)
    with refused(f"value '{count}' is invalid for argument count"):
        file.read(count)
    assert file.read() == (b"0123", True)


def test_any_bytes_come_and_go(client: Client, path: Path) -> None:
    data = bytes(range(256)) * 5 + b"\0\xff"
    file = File(client, path, "w+")
    for end in range(5, len(data) + 1, 100):
        file.seek(0)
        assert file.write(data[:end]) == end
        file.seek(0)
        assert file.read(end) == (data[:end], False)
    assert path.read_bytes() == data[:end]


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_a_write_of_a_part(client: Client, path: Path, count: int) -> None:
    file = File(client, path, "w")
    assert file.write(b"12345", count=count) == count
    assert path.read_bytes() == b"12345"[:count]


@pytest.mark.parametrize("count", [-1, 6, 2**63 - 1])
def test_a_write_of_more_than_there_is_is_refused(client: Client, path: Path, count: int) -> None:
    file = File(client, path, "w")
    with refused(f"value '{count}' is invalid for argument count"):
        file.write(b"12345", count=count)
    assert path.read_bytes() == b""


def test_a_write_of_many_megabytes(client: Client, path: Path) -> None:
    data = random.Random(9).randbytes(47 * MIB)
    file = File(client, path, "w")
    assert file.write(data) == len(data)
    assert path.read_bytes() == data


def write_text(client: Client, path: Path, text: str) -> bytes:
    """The content of the file after writing this base64 text."""
    file = File(client, path, "w")
    result = client.call("guest-file-write", handle=file.handle, buf_b64=text)
    assert result["count"] == path.stat().st_size
    return path.read_bytes()


def test_base64_in_lines(client: Client, path: Path) -> None:
    """As Proxmox VE sends it: with a newline after each 76 characters."""
    data = random.Random(10).randbytes(10_000)
    assert write_text(client, path, base64.encodebytes(data).decode()) == data


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", b""),
        ("YQ==", b"a"),
        ("Y\nQ\n=\n=\n", b"a"),
        ("YQ", b""),
        ("aGVsbG8", b"hel"),
        ("YQ==YQ==", b"aa"),
        ("aGVsbG8=aGVsbG8=", b"hellohello"),
        ("====", b"\0"),
    ],
)
def test_base64_is_read_leniently(client: Client, path: Path, text: str, data: bytes) -> None:
    assert write_text(client, path, text) == data


@pytest.mark.parametrize("text", ["YQ= =", "!", "YQ==\r\n", "Y-_Q", "äöü", "YQ==\0", "Y\tQ=="])
def test_invalid_base64_is_refused(client: Client, path: Path, text: str) -> None:
    file = File(client, path, "w")
    assert client.refusal("guest-file-write", handle=file.handle, buf_b64=text) == (
        "Base64 data contains invalid characters"
    )
    assert path.read_bytes() == b""


def test_what_is_reported_as_written_is_written(client: Client, path: Path) -> None:
    file = File(client, path, "w")
    file.write(b"x")
    assert path.read_bytes() == b"x", "before any flush"
    assert client.call("guest-file-flush", handle=file.handle) == {}


def test_a_full_disk_is_reported_by_the_write(client: Client) -> None:
    file = File(client, "/dev/full", "w")
    with refused("failed to write to file: No space left on device"):
        file.write(b"x")
    assert client.call("guest-file-flush", handle=file.handle) == {}
    file.close()


def test_reads_writes_and_seeks_in_turn(client: Client, path: Path) -> None:
    path.write_bytes(b"0123456789")
    file = File(client, path, "r+")
    assert file.read(2) == (b"01", False)
    assert file.write(b"ab") == 2
    assert file.read(2) == (b"45", False)
    assert file.seek(-1, "cur") == 5
    assert file.write(b"c") == 1
    assert file.seek(0, "cur") == 6
    assert file.seek(-3, "end") == 7
    assert file.read(100) == (b"789", True)
    assert file.seek(12) == 12
    assert file.write(b"!") == 1
    assert path.read_bytes() == b"01ab4c6789\0\0!"
    assert file.seek(0, 0) == 0
    assert file.seek(3, 1) == 3
    assert file.seek(0, 2) == 13


def test_appending_writes_at_the_end(client: Client, path: Path) -> None:
    path.write_bytes(b"0123")
    file = File(client, path, "a+")
    assert file.read(2) == (b"01", False)
    assert file.write(b"ab") == 2
    assert file.read(2) == (b"", True)
    assert path.read_bytes() == b"0123ab"


def test_seeks_that_cannot_be(client: Client, path: Path) -> None:
    path.write_bytes(b"0123")
    file = File(client, path)
    file.seek(2)
    for offset, whence in ((-1, "set"), (-3, "cur"), (-5, "end")):
        with refused("failed to seek file: Invalid argument"):
            file.seek(offset, whence)
    with refused("invalid whence code 3"):
        file.seek(0, 3)
    with refused("Parameter 'whence' does not accept value 'SET'"):
        file.seek(0, "SET")
    assert file.read() == (b"23", True)


def test_the_wrong_direction(client: Client, path: Path) -> None:
    path.write_bytes(b"0123")
    with refused("failed to write to file: Bad file descriptor"):
        File(client, path, "r").write(b"x")
    with refused("failed to read file: Bad file descriptor"):
        File(client, path, "a").read()
    assert File(client, path, "a").read(0) == (b"", False)
    assert File(client, path, "r").write(b"") == 0


def test_an_unknown_handle_is_reported_first(client: Client, path: Path) -> None:
    file = File(client, path, "w")
    file.close()
    for handle in (file.handle, 0, -1, 2**63 - 1):
        for command, arguments in (
            ("guest-file-read", {"count": -1}),
            ("guest-file-write", {"buf-b64": "!"}),
            ("guest-file-seek", {"offset": 0, "whence": 9}),
            ("guest-file-flush", {}),
            ("guest-file-close", {}),
        ):
            assert client.refusal(command, handle=handle, **arguments) == (
                f"handle '{handle}' has not been found"
            )


@pytest.mark.parametrize(
    ("offset", "whence"), [(-1, "set"), (-(2**63), "set"), (-(2**31), "cur"), (2**63 - 1, "cur")]
)
def test_seeking_beyond_the_largest_position_is_an_error(
    agent: AgentProcess, client: Client, offset: int, whence: str
) -> None:
    """Few files have such positions; lseek(2) returns them as negative numbers."""
    memory = File(client, f"/proc/{agent.pid}/mem")
    assert memory.seek(4096) == 4096
    with refused("failed to seek file: Invalid argument"):
        memory.seek(offset, whence)
    assert memory.seek(0, "cur") == 4096
