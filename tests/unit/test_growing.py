"""Growing filesystems: what a guest of the tests is too small for, and what tools print."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from qga import QgaError

partitions: Any = import_module("qga.commands._grow_partitions")
tools: Any = import_module("qga.commands._grow_tools")
filesystems: Any = import_module("qga.commands._grow_filesystems")

TIB = 1 << 40
SFDISK = """\
Old situation:

Device     Boot Start    End Sectors Size Id Type
/dev/sda1  *     2048 131071  129024  63M 83 Linux

/dev/sda1:
New situation:

Device     Boot Start    End Sectors  Size Id Type
/dev/sda1  *     2048 262143  260096  127M 83 Linux
/dev/sda10      2048 262143  1  127M 83 Linux
"""
GROWPART = "CHANGE: partition=1 start=2048 old: size=129024 end=131071 new: size=260096 end=262143"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """The disk sda with one partition; whether it has a GPT."""
    found = {"gpt": False}
    monkeypatch.setattr(partitions, "parent", lambda _: "sda")
    monkeypatch.setattr(partitions, "_logical_sector", lambda _: 512)
    monkeypatch.setattr(partitions, "_has_gpt", lambda _: found["gpt"])
    monkeypatch.setattr(partitions, "_partitions_of", lambda _: [])
    return found


def test_an_mbr_can_use_2_tib(disk: dict[str, bool]) -> None:
    this = partitions.Partition("sda1", 1, 2048, TIB // 512)
    assert partitions.room_behind(this, 3 * TIB) == TIB
    disk["gpt"] = True
    assert partitions.room_behind(this, 3 * TIB) == 2 * TIB - 33 * 512


@pytest.mark.parametrize(("tool", "output"), [("sfdisk", SFDISK), ("growpart", GROWPART)])
def test_what_a_tool_would_do(
    monkeypatch: pytest.MonkeyPatch, disk: dict[str, bool], tool: str, output: str
) -> None:
    monkeypatch.setattr(tools, "look", lambda *_, **__: output)
    assert partitions.rehearse(partitions.Partition("sda1", 1, 2048, 131072), tool) == 260096 * 512


def test_a_tool_that_says_something_else(
    monkeypatch: pytest.MonkeyPatch, disk: dict[str, bool]
) -> None:
    monkeypatch.setattr(tools, "look", lambda *_, **__: "all is\nwell")
    with pytest.raises(QgaError, match="cannot tell how sfdisk would grow /dev/sda1: all is well"):
        partitions.rehearse(partitions.Partition("sda1", 1, 2048, 131072), "sfdisk")


def test_a_tool_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "LOOK_TIMEOUT", 0.2)
    with pytest.raises(QgaError, match=r"sleep 60 took over 0.2 s and was killed"):
        tools.look("sleep", "60")


def test_a_tool_gets_a_fixed_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    instead = tmp_path / "env"
    instead.write_text("#!/bin/sh\necho not mine\n")
    instead.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    told = tools.look("env").splitlines()
    assert {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"} <= set(told)


def test_a_long_output_is_cut() -> None:
    with pytest.raises(QgaError) as caught:
        tools.look("sh", "-c", "yes no | head -n 100000; exit 4")
    assert "failed with status 4: no no no" in str(caught.value)
    assert len(str(caught.value)) < 1200


def test_a_superblock_that_somebody_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A size of its blocks takes no more memory than a number does."""
    image = tmp_path / "image"
    image.write_bytes(bytes(1024) + b"\xff" * 1024)
    monkeypatch.setattr(filesystems, "dev_path", lambda _: str(image))
    with pytest.raises(QgaError, match="superblock of the filesystem at /a is damaged"):
        _ = filesystems.Ext4("/a", "sda1", -1).size
