"""qgactl mcp and the protocol's own client, about a real guest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("mcp", reason="the protocol's SDK needs Python 3.10")

from tests.guest.service import wait_for
from tests.guest.vm import Guest
from tests.integration.mcp_client import Talk, entries, talking

pytestmark = pytest.mark.timeout(900)

HOG = ["sh", "-c", "exec tail /dev/zero"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mcp")


@pytest.fixture(scope="module")
def talk(guest: Guest, place: Path) -> Iterator[Talk]:
    options = ["--guest", f"vm=unix:{guest.channel_path()}", "--timeout", "60"]
    options += ["--allow", "exec,freeze,write", "--host-folder", str(place)]
    with talking(options, place / "stderr") as talk:
        yield talk


def test_the_guest_is_looked_at(guest: Guest, talk: Talk) -> None:
    assert talk.call("list_guests").data[0]["guest"] == "vm"
    system = talk.call("look", guest="vm", about="system").data
    assert system["host-name"] == "guest"
    mounts = talk.call("look", guest="vm", about="filesystems").data
    assert "/" in [mount["mountpoint"] for mount in mounts]
    assert talk.call("look", guest="vm", about="metrics").data["memory"]["total-bytes"] > 0
    guest.run(["logger", "--tag=qga-mcp", "a line of the guest's"])
    told = talk.call("read_journal", guest="vm", grep="a line of the guest", lines=5).data
    assert "qga-mcp" in told["stdout"]
    assert told["exit-code"] == 0


def test_programs_run_as_a_user_within_limits(guest: Guest, talk: Talk) -> None:
    told = talk.call("run_program", guest="vm", argv=["id", "-un"], user="nobody").data
    assert told["stdout"] == "nobody\n"
    told = talk.call(
        "run_program", guest="vm", argv=HOG, user="nobody", memory=8 << 20, processes=10, cpus=0.9
    ).data
    assert (told["signal"], told["ended-by"]) == (9, "memory")


def test_files_go_both_ways(guest: Guest, talk: Talk, place: Path) -> None:
    content = os.urandom(300_000)
    (place / "there").write_bytes(content)
    path = {"guest": "vm", "path": "/root/mcp-copy"}
    assert talk.call("copy_to_guest", host_path=f"{place}/there", **path).data["files"] == 1
    assert talk.call("copy_from_guest", host_path=f"{place}/back", **path).data["files"] == 1
    assert (place / "back").read_bytes() == content
    assert guest.run(["stat", "-c", "%s", "/root/mcp-copy"]).stdout == "300000\n"
    guest.run(["rm", "/root/mcp-copy"])


def test_a_freeze_ends_even_if_nobody_thaws(guest: Guest, talk: Talk, place: Path) -> None:
    def state() -> str:
        return str(talk.call("look", guest="vm", about="freeze").data["status"])

    told = talk.call("freeze_filesystems", guest="vm", seconds=60)
    assert "frozen, for at most 60 s" in told.text
    assert state() == "frozen"
    refused = talk.call("run_program", guest="vm", argv=["true"])
    assert "the guest's filesystems are frozen" in refused.marked
    assert "thawed" in talk.call("thaw_filesystems", guest="vm").text
    assert state() == "thawed"
    assert not talk.call("freeze_filesystems", guest="vm", seconds=3).is_error
    wait_for(lambda: state() == "thawed", "the thaw")
    notes = [entry["note"] for entry in entries(place / "stderr") if "note" in entry]
    assert notes[-1].startswith("vm: ")
    assert notes[-1].endswith("thawed late")


def test_the_end_of_the_server_thaws(guest: Guest, talk: Talk, tmp_path: Path) -> None:
    options = ["--guest", f"vm=unix:{guest.channel_path()}", "--timeout", "60"]
    with talking([*options, "--allow", "freeze"], tmp_path / "err") as another:
        assert not another.call("freeze_filesystems", guest="vm", seconds=600).is_error
    assert talk.call("look", guest="vm", about="freeze").data["status"] == "thawed"
