"""Files of root that are replaced together, or not at all."""

from __future__ import annotations

import os
import stat
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from qga import QgaError

replacing: Any = import_module("qga.commands._replacing")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of root only; those of pytest are below one where everybody may write."""
    monkeypatch.setattr(replacing.trust, "require", lambda path: path)
    return tmp_path


def test_files_are_replaced_together(folder: Path) -> None:
    old, missing = folder / "old", folder / "missing"
    old.write_text("before")
    old.chmod(0o640)
    with replacing.replaced({str(old): b"after", str(missing): b"new"}):
        assert old.read_text() == "after"
    assert (old.read_text(), missing.read_text()) == ("after", "new")
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert stat.S_IMODE(missing.stat().st_mode) == 0o644
    assert sorted(os.listdir(folder)) == ["missing", "old"]


def test_files_come_back_if_the_block_fails(folder: Path) -> None:
    old, missing = folder / "old", folder / "missing"
    old.write_text("before")
    number = old.stat().st_ino
    with pytest.raises(QgaError), replacing.replaced({str(old): b"after", str(missing): b"new"}):
        raise QgaError("no")
    assert old.read_text() == "before"
    assert old.stat().st_ino == number
    assert os.listdir(folder) == ["old"]


def test_the_others_come_back_if_one_cannot(folder: Path) -> None:
    files = [folder / name for name in ("a", "b", "c")]
    for file in files:
        file.write_text("before")
    failed = pytest.raises(QgaError, match=r"^no; .*/b has its new content \(see .*/b\.qga-old\): ")
    with failed, replacing.replaced({str(file): b"after" for file in files}):
        files[1].unlink()
        files[1].mkdir()  # rename(2) does not put a file in its place
        raise QgaError("no")
    assert [file.read_text() for file in files if file.is_file()] == ["before"] * 2
    assert sorted(os.listdir(folder)) == ["a", "b", "b.qga-old", "c"]
    assert (folder / "b.qga-old").read_text() == "before"


def test_nothing_is_replaced_if_one_file_cannot_be(folder: Path) -> None:
    old, link = folder / "old", folder / "link"
    old.write_text("before")
    link.symlink_to(old)
    refused = pytest.raises(QgaError, match="link is a symbolic link; replace it by hand")
    with refused, replacing.replaced({str(old): b"after", str(link): b"after"}):
        pytest.fail("it was replaced")
    assert old.read_text() == "before"
    with pytest.raises(FileNotFoundError), replacing.replaced({f"{folder}/no/file": b""}):
        pytest.fail("it was replaced")


def test_what_a_killed_agent_left_is_cleared(folder: Path) -> None:
    old = folder / "old"
    old.write_text("before")
    (folder / "old.qga-new").write_text("unfinished")
    (folder / "old.qga-old").symlink_to("/etc/passwd")
    with replacing.replaced({str(old): b"after"}):
        pass
    assert old.read_text() == "after"
    assert os.listdir(folder) == ["old"]


def test_a_directory_where_others_may_write_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    (folder / "open").mkdir()
    (folder / "open").chmod(0o777)
    refused = pytest.raises(QgaError, match="is writable by others")
    with refused, replacing.replaced({f"{folder}/open/file": b"content"}):
        pytest.fail("it was written")
    assert os.listdir(folder / "open") == []
