"""Who could have written a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qga.settings import trust
from qga.settings.trust import Untrusted, require, require_program

STRANGER = 12345


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "file"
    path.parent.mkdir(mode=0o755)
    path.write_text("")
    path.chmod(0o644)
    return path


def fault(path: Path, *owners: int) -> str:
    with pytest.raises(Untrusted) as raised:
        require(str(path), owners)
    return str(raised.value)


def test_a_file_of_root_s_own(path: Path) -> None:
    assert require(str(path)) == str(path)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_may_write(path: Path, mode: int) -> None:
    path.chmod(mode)
    assert fault(path) == f"{path} is writable by others (mode {mode:04o}); chmod go-w it"


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_directory_on_the_way_that_others_may_write(path: Path, mode: int) -> None:
    path.parent.chmod(mode)
    assert fault(path).startswith(f"{path.parent} is writable by others")


def test_a_sticky_directory_on_the_way(path: Path) -> None:
    path.parent.chmod(0o1777)
    require(str(path))


@pytest.mark.parametrize("which", ["file", "folder"])
def test_what_belongs_to_somebody_else(path: Path, which: str) -> None:
    theirs = path if which == "file" else path.parent
    os.chown(theirs, STRANGER, 0)
    assert fault(path) == f"{theirs} must be owned by root, not by uid {STRANGER}"
    require(str(path), [STRANGER])


def test_where_a_link_lies_and_where_it_leads_both_count(path: Path, tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir(mode=0o755)
    (links / "link").symlink_to("../folder")
    assert require(f"{links}/link/file") == str(path)
    links.chmod(0o777)
    assert fault(links / "link" / "file").startswith(f"{links} is writable by others")
    links.chmod(0o755)
    path.parent.chmod(0o777)
    assert fault(links / "link" / "file").startswith(f"{path.parent} is writable by others")


def test_a_link_of_somebody_else_in_a_sticky_directory(path: Path, tmp_path: Path) -> None:
    """Whoever has made it may make it lead elsewhere at any moment."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "link").symlink_to(path.parent)
    require(f"{shared}/link/file")
    os.lchown(shared / "link", STRANGER, 0)
    assert fault(shared / "link" / "file") == (
        f"{shared}/link is a symbolic link owned by uid {STRANGER}; it must be owned by root"
    )


def test_links_in_a_circle_and_missing_files(path: Path) -> None:
    (path.parent / "circle").symlink_to("circle")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        require(str(path.parent / "circle"))
    with pytest.raises(FileNotFoundError):
        require(str(path.parent / "missing"))


def script(path: Path, first_line: str) -> Path:
    path.write_text(f"{first_line}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("line", ["#!{}", "#! \t{}\t-e", "#!{} -e\n# and more"])
def test_an_interpreter_that_others_may_write(path: Path, tmp_path: Path, line: str) -> None:
    """Whoever replaces it replaces the program."""
    runs = script(tmp_path / "runs", line.format(path))
    assert require_program(str(runs)) == str(runs)
    path.chmod(0o757)
    with pytest.raises(Untrusted, match=f"^{path} is writable by others"):
        require_program(str(runs))
    path.chmod(0o755)
    script(path, f"#!{tmp_path}/interpreter")
    os.chown(script(tmp_path / "interpreter", ""), STRANGER, 0)
    with pytest.raises(Untrusted, match="interpreter must be owned by root"):
        require_program(str(runs))
    require_program(str(runs), [STRANGER])


@pytest.mark.parametrize("line", ["", "#", "#!", "#!\0/x", "\x7fELF", "echo"])
def test_what_names_no_interpreter(path: Path, line: str) -> None:
    assert require_program(str(script(path, line))) == str(path)


def test_a_script_that_is_its_own_interpreter(path: Path) -> None:
    require_program(str(script(path, f"#!{path}")))


def test_a_program_that_is_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    require_program(f"{tmp_path}/fifo")


def test_a_program_that_may_be_run_but_not_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_program: str) -> bytes:
        raise PermissionError

    monkeypatch.setattr(trust, "first_line", refuse)  # root may read all
    assert require_program(str(path)) == str(path)
