"""Lists of a hostile guest, and what they would have us do on the host."""

from __future__ import annotations

import errno
import os
import stat
import time
from errno import EACCES, EPERM
from pathlib import Path

import pytest

from qga.client import ProtocolError
from qga.client.copies import shell_files
from qga.client.copies.local_files import LocalFiles
from qga.client.copies.shell_files import listed
from qga.client.copies.trees import (
    Entry,
    Finished,
    Piece,
    Place,
    checked,
    is_planted,
    pieces_of,
    temporary_place,
)

FILE, FOLDER, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777


def test_directories_come_before_what_is_in_them() -> None:
    entries = [
        Entry("b/c/file", FILE, 1),
        Entry("a", FILE, 1),
        Entry("b/c", FOLDER, 0),
        Entry("b", FOLDER, 0),
    ]
    assert [entry.name for entry in checked(entries)] == ["b", "b/c", "a", "b/c/file"]


@pytest.mark.parametrize(
    "names",
    [
        ["../evil"],
        ["/etc/passwd"],
        [""],
        ["."],
        [".."],
        ["a/"],
        ["//evil"],
        ["./evil"],
        ["a//b"],
        ["a/./b"],
        ["a/../b"],
        ["a/.."],
        ["a\0b"],
        ["unlisted/file"],
        ["twice", "twice"],
    ],
)
def test_a_list_that_leads_out_of_the_tree(names: list[str]) -> None:
    with pytest.raises(ProtocolError, match="the guest lists a file as"):
        checked([Entry(name, FILE, 1) for name in names])


def test_nothing_lies_below_a_link() -> None:
    with pytest.raises(ProtocolError, match="'link/file'"):
        checked([Entry("link", LINK, 0, "/etc"), Entry("link/file", FILE, 1)])


def test_the_output_of_the_listing() -> None:
    output = b"2\n81a4 5\n41ed 0\n./a\nb\0./c\0" + b"1\na1ff 3\n./\xff\0"
    assert list(listed(output)) == [
        Entry("a\nb", 0o100644, 5),
        Entry("c", 0o40755, 0),
        Entry("\udcff", 0o120777, 3),
    ]


@pytest.mark.parametrize(
    "output",
    [
        b"x",
        b"1\nzz 5\n./a\0",
        b"2\n81a4 5\n./a\0",
        b"1\n81a4\n./a\0",
        b"1\n81a4 5\n/a\0",
        b"1\n81a4 5\n\0",
        b"1\n\xff\xff 5\n./a\0",
        b"1\n-81a4 5\n./a\0",
        b"1\n81a4 -5\n./a\0",
        b"1\n181a4 5\n./a\0",
        b"1\n81a4 9223372036854775808\n./a\0",
        b"9" * 5000 + b"\n",
    ],
)
def test_an_invalid_listing(output: bytes) -> None:
    with pytest.raises(ProtocolError, match="the guest's "):
        list(listed(output))


def test_a_long_listing_takes_linear_time() -> None:
    one = b"1\n81a4 5\n./file\0"
    start = time.process_time()
    assert sum(1 for _ in listed(one * 200_000)) == 200_000
    assert time.process_time() - start < 20  # minutes, if the rest were copied for each


def test_pieces_cover_a_file() -> None:
    size = 40 * 1024 * 1024
    pieces = pieces_of(Place("f"), size)
    assert [piece.offset for piece in pieces] == [0, 16 * 1024 * 1024, 32 * 1024 * 1024]
    assert sum(piece.size for piece in pieces) == size
    assert pieces_of(Place("f"), 0) == []


def test_temporary_names_fit_the_filesystem() -> None:
    assert temporary_place(Place("/a", "file")) == Place("/a", ".file.qga-part")
    assert temporary_place(Place("/a", "b/file"), ".1") == Place("/a", "b/.file.1.qga-part")
    name = temporary_place(Place("/a", "ä" * 127), ".12345678").name
    assert len(name.encode()) <= 255


def test_links_of_other_users_may_be_traps() -> None:
    shared, own = 0o1777, 0o755
    assert is_planted(owner=5, folder_mode=shared, folder_owner=0, us=0)
    assert not is_planted(owner=0, folder_mode=shared, folder_owner=0, us=0)
    assert not is_planted(owner=5, folder_mode=shared, folder_owner=5, us=0)
    assert not is_planted(owner=5, folder_mode=own, folder_owner=0, us=0)


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "part").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic links"):
        LocalFiles().write(Place(str(tmp_path), "part"), 0, 1, iter([b"x"]))
    assert precious.read_text() == "precious"


def test_a_file_whose_owner_cannot_be_kept_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(EPERM, os.strerror(EPERM))

    monkeypatch.setattr(os, "fchown", refuse)
    there, top = tmp_path / "file", str(tmp_path)
    there.write_text("longer than before")
    before = there.stat()
    local, temporary = LocalFiles(), Place(top, ".part")
    assert local.create([temporary], [None], exactly=False) == [""]
    local.write(temporary, 0, 3, iter([b"new"]))
    assert local.finish([Finished(0o777, temporary, Place(top, "file"), 0)], exactly=False) == [""]
    assert there.read_text() == "new"
    assert (there.stat().st_ino, there.stat().st_mode) == (before.st_ino, before.st_mode)
    assert os.listdir(tmp_path) == ["file"]


def test_what_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(EACCES, os.strerror(EACCES))

    monkeypatch.setattr(os, "listdir", refuse)
    assert LocalFiles().below(str(tmp_path)) == ([], [f"{tmp_path}: Permission denied"])


def test_a_piece_that_cannot_be_read_has_no_checksum(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    top = str(tmp_path)
    pieces = [Piece(Place(top, "none"), 0, 1), Piece(Place(top, "file"), 1, 1)]
    # sha256sum(1) of "b"
    assert LocalFiles().checksums(pieces) == [
        "",
        "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d",
    ]


@pytest.mark.parametrize("count", [500_001, 10**12])
def test_more_files_than_can_be_listed(count: int) -> None:
    """Refused by the number alone, before anything is made of the list."""
    with pytest.raises(ProtocolError, match="more than 500000 files: copy its parts"):
        list(listed(b"%d\n" % count + b"\n" * 1000))


def test_files_are_counted_over_the_whole_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell_files, "MOST_FILES", 2)
    one = b"1\n81a4 5\n./a\0"
    assert len(list(listed(one * 2))) == 2
    with pytest.raises(ProtocolError, match="more than 2 files"):
        list(listed(one * 3))


@pytest.mark.parametrize("call", ["symlink", "replace"])
def test_a_link_that_cannot_be_replaced_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "link").symlink_to("old")
    monkeypatch.setattr(os, call, fail)
    place = Place(str(tmp_path), "link")
    assert LocalFiles().make_links([("new", place)]) == ["No space left on device"]
    assert os.listdir(tmp_path) == ["link"]
    assert os.readlink(tmp_path / "link") == "old"


def test_a_link_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("old")
    assert LocalFiles().make_links([("new", Place(str(tmp_path), "link"))]) == [""]
    assert os.listdir(tmp_path) == ["link"]
    assert os.readlink(tmp_path / "link") == "new"
