"""Files of other users pass through a directory that keeps everybody else out.

This machine stands in for the guest, and the user of the tests for both of its users.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("pyinfra", reason="pyinfra needs Python 3.10")

from qga.integrations import pyinfra_files


class Here:
    """A connector and its agent."""

    def __init__(self) -> None:
        self.agent = self
        self.data = {"qga_user": str(os.getuid())}
        self.directory = ""
        self.modes: list[str] = []
        self.copied: list[str] = []

    def exec(self, argv: Sequence[str], check: bool = False, text: bool = False) -> Any:
        done = subprocess.run(argv, check=check, text=True, capture_output=True)
        if argv[0] == "mktemp":
            self.directory = done.stdout.strip()
        return done

    def run_shell_command(self, command: Any, **arguments: Any) -> tuple[bool, Any]:
        self.modes = [mode(path) for path in (self.directory, f"{self.directory}/file")]
        done = subprocess.run(
            ["/bin/sh", "-c", command.get_raw_value()],
            cwd=arguments.get("_chdir"),
            text=True,
            capture_output=True,
            check=False,
            umask=arguments.get("umask", 0o022),
        )
        return done.returncode == 0, SimpleNamespace(stderr=done.stderr)

    def copy(self, agent: Any, paths: Sequence[str], destination: str) -> Any:
        self.copied.extend(paths)
        shutil.copy(paths[0], destination)
        return SimpleNamespace(require_all=lambda: None)


def mode(path: str | Path) -> str:
    return f"{os.stat(path).st_mode & 0o777:o}"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    here = Here()
    monkeypatch.setattr(pyinfra_files, "copy_to", here.copy)
    monkeypatch.setattr(pyinfra_files, "copy_from", here.copy)
    return here


def put(here: Here, path: str, **arguments: Any) -> None:
    pyinfra_files.put_file(cast(Any, here), io.BytesIO(b"content"), path, arguments)


def test_only_its_user_can_read_a_file_on_its_way(here: Here, tmp_path: Path) -> None:
    put(here, str(tmp_path / "new"))
    assert (tmp_path / "new").read_bytes() == b"content"
    assert here.modes == ["711", "600"]
    assert not os.path.exists(here.directory)


def test_nobody_enters_if_the_file_cannot_be_handed_over(here: Here, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    tmp_path.chmod(0o700)
    done = here.exec(["sh", "-c", pyinfra_files.HAND_OVER, "sh", str(tmp_path), "no such user"])
    assert "no such user" in done.stderr
    assert mode(tmp_path) == "700"


@pytest.mark.parametrize(("umask", "expected"), [(0, "644"), (0o022, "644"), (0o077, "600")])
def test_the_mode_of_a_new_file(here: Here, tmp_path: Path, umask: int, expected: str) -> None:
    put(here, str(tmp_path / "new"), umask=umask)
    assert mode(tmp_path / "new") == expected


def test_a_file_that_was_there_keeps_its_mode(here: Here, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("longer than the new content")
    (tmp_path / "old").chmod(0o640)
    put(here, str(tmp_path / "old"))
    assert (tmp_path / "old").read_bytes() == b"content"
    assert mode(tmp_path / "old") == "640"


def get(here: Here, path: str, **arguments: Any) -> bytes:
    content = io.BytesIO()
    pyinfra_files.get_file(cast(Any, here), path, content, arguments)
    return content.getvalue()


def test_what_is_got_is_what_the_user_has_read(here: Here, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content\n\0")
    assert get(here, str(tmp_path / "file")) == b"content\n\0"
    assert here.copied == [f"{here.directory}/file"]
    assert here.modes == ["711", "600"]
    assert not os.path.exists(here.directory)


def test_a_file_that_the_user_cannot_read_is_not_copied(here: Here, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="absent: No such file"):
        get(here, str(tmp_path / "absent"))
    assert not here.copied
    assert not os.path.exists(here.directory)


def test_what_the_guest_says_of_a_failure_is_printable(here: Here, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"\\x1b\[2J/absent") as raised:
        put(here, str(tmp_path / "\x1b[2J/absent"))
    assert str(raised.value).isprintable()


def test_relative_paths_are_the_same_in_both_directions(here: Here, tmp_path: Path) -> None:
    put(here, "-name", _chdir=str(tmp_path))
    assert (tmp_path / "-name").read_bytes() == get(here, "-name", _chdir=str(tmp_path))
