"""Where groups are found, and what is said of those that are left out."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qga.plugin import discovery, time_limit
from qga.plugin.registry import command_names

GROUP = """
from qga import CommandGroup, command

class {name}(CommandGroup):
    @command()
    def {method}(self) -> None: ...
"""


@pytest.fixture(autouse=True)
def _modules_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir(mode=0o755)
    return folder


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def group(name: str, method: str) -> str:
    return GROUP.format(name=name, method=method)


def found(plugin_dir: Path | None) -> tuple[list[str], list[str]]:
    """Commands beyond the standard ones, and complaints."""
    complaints: list[str] = []
    groups = discovery.discover(str(plugin_dir) if plugin_dir else None, complaints.append)
    names = command_names(groups)
    return [name for name in names if name.startswith("test-")], complaints


def installed(folder: Path, name: str, entry_points: str) -> None:
    """A distribution's metadata as pip leaves it."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    write(info / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    write(info / "entry_points.txt", f"[qga.commands]\n{entry_points}\n")


class TestStandard:
    def test_the_standard_groups_are_always_found(self) -> None:
        complaints: list[str] = []
        names = command_names(discovery.discover(None, complaints.append))
        assert {"guest-ping", "guest-sync", "guest-info", "guest-file-open"} <= set(names)
        assert len(names) == len(set(names))
        assert complaints == []


class TestFolder:
    def test_files_in_the_order_of_their_names(self, folder: Path) -> None:
        write(folder / "b.py", group("B", "test_b"))
        write(folder / "a-file.py", group("A", "test_a"))
        write(folder / "notes.txt", "not Python")
        assert found(folder) == (["test-a", "test-b"], [])

    def test_a_group_that_is_only_imported_is_not_the_plugin_s(self, folder: Path) -> None:
        write(folder / "a.py", "from qga import CommandGroup\nfrom qga.commands.info import Info")
        groups = discovery.discover(str(folder), pytest.fail)
        assert [each.__name__ for each in groups].count("Info") == 1

    def test_one_that_fails_is_left_out_with_its_reason(self, folder: Path) -> None:
        write(folder / "a.py", group("A", "test_a"))
        bad = write(folder / "bad.py", "import json\n1 / 0\n")
        leaving = write(folder / "leaving.py", "raise SystemExit(3)\n")
        wrong = write(folder / "wrong.py", "def :\n")
        write(folder / "z.py", group("Z", "test_z"))
        names, complaints = found(folder)
        assert names == ["test-a", "test-z"]
        assert complaints[0] == (f"plugin {bad} skipped: ZeroDivisionError: division by zero")
        assert complaints[1] == f"plugin {leaving} skipped: SystemExit: 3"
        assert complaints[2].startswith(f"plugin {wrong} skipped: SyntaxError: ")
        assert "qga_plugin_bad" not in sys.modules

    @pytest.mark.parametrize(
        "body",
        [
            "time.sleep(1000)",
            "while True: pass",
            "while True:\n    try: time.sleep(1000)\n    except Exception: pass",
        ],
    )
    def test_a_plugin_that_hangs_is_skipped(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, body: str
    ) -> None:
        monkeypatch.setattr(time_limit, "LOADING_TIME", 0.2)
        hanging = write(folder / "a.py", f"import time\n{body}\n")
        write(folder / "b.py", group("B", "test_b"))
        assert found(folder) == (
            ["test-b"],
            [f"plugin {hanging} skipped: loading took longer than 0.2 s"],
        )

    @pytest.mark.parametrize("mode", [0o666, 0o664, 0o646])
    def test_a_file_that_others_may_write(self, folder: Path, mode: int) -> None:
        path = write(folder / "a.py", group("A", "test_a"), mode)
        write(folder / "b.py", group("B", "test_b"))
        names, complaints = found(folder)
        assert names == ["test-b"]
        assert complaints == [
            f"plugin {path} skipped: {path} is writable by others (mode {mode:04o}); chmod go-w it"
        ]

    @pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
    def test_a_directory_that_others_may_write(self, folder: Path, mode: int) -> None:
        write(folder / "a.py", group("A", "test_a"))
        folder.chmod(mode)
        names, complaints = found(folder)
        assert names == []
        assert complaints == [
            f"plugin directory {folder} skipped: {folder} is writable by others "
            f"(mode {mode:04o}); chmod go-w it"
        ]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
    def test_a_file_of_somebody_else(self, folder: Path) -> None:
        path = write(folder / "a.py", group("A", "test_a"))
        os.chown(path, 12345, 0)
        names, complaints = found(folder)
        assert names == []
        assert complaints == [
            f"plugin {path} skipped: {path} must be owned by root, not by uid 12345"
        ]

    def test_a_link_is_judged_by_what_it_points_at(self, folder: Path, tmp_path: Path) -> None:
        (folder / "a.py").symlink_to(write(tmp_path / "target.py", "", 0o666))
        names, complaints = found(folder)
        assert names == []
        assert "is writable by others" in complaints[0]

    def test_a_missing_directory(self, tmp_path: Path) -> None:
        names, complaints = found(tmp_path / "none")
        assert names == []
        (complaint,) = complaints
        assert complaint.startswith(f"plugin directory {tmp_path}/none skipped: ")
        assert "No such file or directory" in complaint

    def test_annotations_of_a_plugin_are_resolved(self, folder: Path) -> None:
        write(
            folder / "a.py",
            "from __future__ import annotations\n"
            "from typing import Literal, TypedDict\n"
            "from qga import CommandGroup, command\n"
            "Colour = Literal['red']\n"
            "class Paint(TypedDict):\n"
            "    colour: Colour\n"
            "class A(CommandGroup):\n"
            "    @command()\n"
            "    def test_a(self, paint: Paint) -> Colour: ...\n",
        )
        from qga.plugin.registry import Registry

        registry = Registry()
        (paint,) = [
            each for each in discovery.discover(str(folder), pytest.fail) if each.__name__ == "A"
        ]
        registry.add(paint(None))  # type: ignore[arg-type]
        (entry,) = registry
        described = entry.signature.describe()
        assert described == {"arguments": {"paint": "Paint"}, "returns": "Colour"}
        assert entry.signature.bind({"paint": {"colour": "red"}}) == {"paint": {"colour": "red"}}


class TestEntryPoints:
    @pytest.fixture
    def site(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.syspath_prepend(str(tmp_path))
        return tmp_path

    def test_a_module_and_a_group(self, site: Path) -> None:
        write(site / "plugin_one.py", group("One", "test_one"))
        write(site / "plugin_two.py", group("Two", "test_two") + group("Three", "test_three"))
        installed(site, "one", "one = plugin_one")
        installed(site, "two", "two = plugin_two:Two")
        names, complaints = found(None)
        assert sorted(names) == ["test-one", "test-two"]
        assert complaints == []

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("plugin_missing", "ModuleNotFoundError: No module named 'plugin_missing'"),
            ("plugin_one:Nothing", "AttributeError: "),
            ("plugin_one:number", "5 is neither a module nor a CommandGroup"),
            ("plugin_bad", "RuntimeError: no such hardware"),
        ],
    )
    def test_an_invalid_group_is_skipped(self, site: Path, value: str, reason: str) -> None:
        write(site / "plugin_one.py", group("One", "test_one") + "number = 5\n")
        write(site / "plugin_bad.py", "raise RuntimeError('no such hardware')\n")
        installed(site, "bad", f"bad = {value}")
        installed(site, "one", "one = plugin_one")
        names, complaints = found(None)
        assert names == ["test-one"]
        (complaint,) = complaints
        assert complaint.startswith(f"plugin bad ({value}) skipped: {reason}")

    def test_the_directory_comes_last(self, site: Path, folder: Path) -> None:
        write(folder / "a.py", group("A", "test_a"))
        write(site / "plugin_one.py", group("One", "test_one"))
        installed(site, "one", "one = plugin_one")
        assert found(folder) == (["test-one", "test-a"], [])
