"""Files that the agent creates: it follows no links in directories that others can write to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from qga.service.state import State, is_frozen
from tests.integration.agent_process import listening, refused_start

STRANGER = 12345
TEXT = "[global]\nfd_counter=5\nvictim\n"

FILES = {"pid": "-f", "log": "-l", "qga.state": "-t"}
"""Each file with the option that names it or its directory."""


def writable(directory: Path) -> None:
    directory.chmod(0o777)


def sticky(directory: Path) -> None:
    directory.chmod(0o1777)


def of_a_group(directory: Path) -> None:
    directory.chmod(0o775)


def of_a_stranger(directory: Path) -> None:
    os.chown(directory, STRANGER, STRANGER)


@pytest.fixture(
    params=[writable, sticky, of_a_group, of_a_stranger], ids=lambda each: each.__name__
)
def theirs(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    directory = tmp_path / "theirs"
    directory.mkdir()
    change: Callable[[Path], None] = request.param
    change(directory)
    return directory


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    victim = tmp_path / "victim"
    victim.write_text(TEXT)
    victim.chmod(0o640)
    return victim


def option(directory: Path, name: str) -> tuple[str, str]:
    flag = FILES[name]
    return flag, str(directory if flag == "-t" else directory / name)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("name", ["pid", "log", "qga.state"])
def test_a_link_is_not_followed(
    tmp_path: Path, theirs: Path, victim: Path, name: str, hard: bool
) -> None:
    if hard:
        os.link(victim, theirs / name)
    else:
        (theirs / name).symlink_to(victim)
    said = refused_start(tmp_path, *option(theirs, name))
    link = f"symbolic link in {theirs}, where others can write"
    assert (f"further hard links, and others can write to {theirs}" if hard else link) in said
    assert "fd_counter" not in said
    assert victim.read_text() == TEXT


@pytest.mark.parametrize("name", ["pid", "log", "qga.state"])
def test_nor_is_a_link_to_nowhere(tmp_path: Path, theirs: Path, name: str) -> None:
    (theirs / name).symlink_to(tmp_path / "made")
    refused_start(tmp_path, *option(theirs, name))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("is_read", [False, True])
@pytest.mark.parametrize("name", ["pid", "log", "qga.state", "qga.state.new"])
def test_a_fifo_is_neither_waited_for_nor_written_to(
    tmp_path: Path, theirs: Path, name: str, is_read: bool
) -> None:
    path = theirs / name
    os.mkfifo(path)
    os.chown(path, STRANGER, STRANGER)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if is_read else -1
    try:
        refused_start(tmp_path, *option(theirs, name.removesuffix(".new")))
        assert not is_read or not os.read(reader, 1)
    finally:
        if is_read:
            os.close(reader)


def test_nor_is_one_while_the_agent_serves(tmp_path: Path, theirs: Path, victim: Path) -> None:
    """A new state goes into a file of another name before it takes the place of the old one."""
    with listening(tmp_path, "-t", str(theirs)) as agent, agent.connect() as client:
        (theirs / "qga.state.new").symlink_to(victim)
        refusal = client.refusal("guest-file-open", path="/etc/passwd")
        assert refusal == "failed to commit persistent state to disk"
        (theirs / "qga.state.new").unlink()
        client.call("guest-file-open", path="/etc/passwd")
    assert victim.read_text() == TEXT


@pytest.mark.timeout(20)
def test_a_fifo_in_place_of_the_frozen_marker_is_not_waited_for(theirs: Path) -> None:
    os.mkfifo(theirs / "qga.state.isfrozen")
    assert is_frozen(str(theirs))


@pytest.mark.parametrize("name", ["pid", "log", "qga.state"])
def test_a_link_of_theirs_on_the_way_is_not_followed(
    tmp_path: Path, theirs: Path, name: str
) -> None:
    (tmp_path / "inside").mkdir()
    (theirs / "way").symlink_to(tmp_path / "inside")
    os.lchown(theirs / "way", STRANGER, STRANGER)
    said = refused_start(tmp_path, *option(theirs / "way", name))
    assert (
        f"{theirs}/way is a symbolic link owned by uid {STRANGER}; it must be owned by root" in said
    )
    assert os.listdir(tmp_path / "inside") == []


@pytest.mark.parametrize("name", ["pid", "log", "qga.state"])
def test_where_only_root_writes_a_link_is_root_s(tmp_path: Path, name: str) -> None:
    ours, elsewhere = tmp_path / "ours", tmp_path / "elsewhere"
    ours.mkdir(mode=0o755)
    elsewhere.mkdir(mode=0o755)
    (elsewhere / name).write_text("")
    (ours / name).symlink_to(elsewhere / name)
    with listening(tmp_path, "-v", *option(ours, name)) as agent, agent.connect() as client:
        client.call("guest-ping")
        if name != "qga.state":
            assert (elsewhere / name).read_text()


@pytest.mark.parametrize("name", ["pid", "log", "qga.state"])
def test_without_links_it_works_there_as_well(tmp_path: Path, theirs: Path, name: str) -> None:
    with listening(tmp_path, "-v", *option(theirs, name)) as agent, agent.connect() as client:
        client.call("guest-file-open", path="/etc/passwd")
        assert (theirs / name).read_text()


@pytest.mark.parametrize("name", ["pid", "log", "qga.state", "qga.state.new"])
@pytest.mark.parametrize("change", [writable, sticky])
def test_a_file_of_theirs_is_not_used_where_everyone_can_write(
    tmp_path: Path, change: Callable[[Path], None], name: str
) -> None:
    directory = tmp_path / "theirs"
    directory.mkdir()
    change(directory)
    (directory / name).write_text(TEXT)
    os.chown(directory / name, STRANGER, STRANGER)
    said = refused_start(tmp_path, *option(directory, name.removesuffix(".new")))
    # The kernel may refuse it already (fs.protected_regular).
    assert f"it is owned by uid {STRANGER}" in said or "Permission denied" in said
    assert (directory / name).read_text() == TEXT


@pytest.mark.parametrize("change", [of_a_group, of_a_stranger])
def test_a_log_may_belong_to_another_user_where_only_some_can_write(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """Such as in /var/log of Ubuntu."""
    directory = tmp_path / "theirs"
    directory.mkdir()
    change(directory)
    (directory / "log").touch()
    os.chown(directory / "log", STRANGER, STRANGER)
    with (
        listening(tmp_path, "-v", "-l", str(directory / "log")) as agent,
        agent.connect() as client,
    ):
        client.call("guest-ping")
        assert (directory / "log").read_text()


def test_a_marker_of_theirs_does_not_freeze_the_agent(tmp_path: Path) -> None:
    """A marker of this boot would be believed, whatever the state of the filesystems."""
    directory = tmp_path / "theirs"
    directory.mkdir()
    sticky(directory)
    state = State(str(directory))
    state.mark_frozen(3600)
    assert not State(str(directory)).doubtful
    os.chown(state.marker, STRANGER, STRANGER)
    assert State(str(directory)).doubtful
