"""The handle counter never goes back, and the frozen marker outlives the process."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from qga.errors import QgaError
from qga.service.state import State, StateError, is_frozen


def content(statedir: Path) -> str:
    return (statedir / "qga.state").read_text()


def test_the_file_is_made_at_the_start(tmp_path: Path) -> None:
    State(str(tmp_path))
    assert content(tmp_path) == "[global]\nfd_counter=1000\n"


def test_numbers_count_up_and_are_on_disk_before_they_are_used(tmp_path: Path) -> None:
    state = State(str(tmp_path))
    assert [state.next_handle(), state.next_handle()] == [1000, 1001]
    assert content(tmp_path) == "[global]\nfd_counter=1002\n"
    assert os.listdir(tmp_path) == ["qga.state"]


def test_a_restart_continues_where_it_was(tmp_path: Path) -> None:
    State(str(tmp_path)).next_handle()
    assert State(str(tmp_path)).next_handle() == 1001


@pytest.mark.parametrize(
    ("text", "handle"),
    [
        ("[global]\nfd_counter=2000\n", 2000),
        ("[global]\nfd_counter=abc\n", 0),
        ("[global]\nfd_counter=-5\n", 0),
        ("[global]\nother=1\n", 1000),
        ("[x]\n", 1000),
        ("", 1000),
    ],
)
def test_files_of_other_agents(tmp_path: Path, text: str, handle: int) -> None:
    (tmp_path / "qga.state").write_text(text)
    assert State(str(tmp_path)).next_handle() == handle


def test_a_file_that_does_not_parse_is_an_error_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "qga.state").write_text("[global]\ngarbage\n")
    with pytest.raises(StateError, match=r"from path: .*/qga\.state, line 2: 'garbage' is"):
        State(str(tmp_path))


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "qga.state").mkdir()
    with pytest.raises(StateError, match=r"qga\.state, Is a directory"):
        State(str(tmp_path))


@pytest.mark.parametrize("name", ["none", "file"])
def test_a_state_directory_must_be_one(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match=f"'{tmp_path}/{name}' does not exist"):
        State(str(tmp_path / name))


def test_a_number_that_cannot_be_recorded_is_not_given(tmp_path: Path) -> None:
    state = State(str(tmp_path))
    (tmp_path / "qga.state.new").mkdir()
    with pytest.raises(QgaError, match=r"^failed to commit persistent state to disk$"):
        state.next_handle()
    (tmp_path / "qga.state.new").rmdir()
    assert state.next_handle() == 1000


def test_threads_never_get_the_same_number(tmp_path: Path) -> None:
    state = State(str(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        handles = list(pool.map(lambda _: state.next_handle(), range(400)))
    assert sorted(handles) == list(range(1000, 1400))
    assert State(str(tmp_path)).next_handle() == 1400


def test_the_marker_outlives_the_process(tmp_path: Path) -> None:
    state = State(str(tmp_path))
    assert (state.frozen, is_frozen(str(tmp_path))) == (False, False)
    state.mark_frozen()
    assert state.frozen
    assert State(str(tmp_path)).frozen
    state.clear_frozen()
    assert (state.frozen, is_frozen(str(tmp_path))) == (False, False)


def test_a_marker_that_was_removed_by_hand_is_not_an_error(tmp_path: Path) -> None:
    state = State(str(tmp_path))
    state.mark_frozen()
    (tmp_path / "qga.state.isfrozen").unlink()
    state.clear_frozen()
    assert not state.frozen


def test_the_marker_tells_when_to_thaw(tmp_path: Path) -> None:
    state = State(str(tmp_path))
    state.mark_frozen(seconds=1000)
    remaining = State(str(tmp_path)).seconds_to_thaw()
    assert remaining is not None
    assert 900 < remaining <= 1001
    state.mark_frozen()
    assert State(str(tmp_path)).seconds_to_thaw() is None


def test_the_marker_of_another_agent_does_not_tell(tmp_path: Path) -> None:
    (tmp_path / "qga.state.isfrozen").touch()
    state = State(str(tmp_path))
    assert (state.frozen, state.seconds_to_thaw()) == (True, None)


def test_a_reboot_has_thawed_everything(tmp_path: Path) -> None:
    (tmp_path / "qga.state.isfrozen").write_text(f"[frozen]\nboot={uuid4()}\nthaw_at=99999999\n")
    assert not State(str(tmp_path)).frozen


def test_nothing_is_written_while_frozen(tmp_path: Path) -> None:
    (tmp_path / "qga.state.isfrozen").touch()
    State(str(tmp_path))
    assert os.listdir(tmp_path) == ["qga.state.isfrozen"]


def test_what_waits_for_the_thaw_is_done_once(tmp_path: Path) -> None:
    done = []
    state = State(str(tmp_path))
    state.when_thawed(lambda: done.append("at once"))
    state.mark_frozen()
    state.when_thawed(lambda: done.append("later"))
    assert done == ["at once"]
    state.clear_frozen()
    state.clear_frozen()
    assert done == ["at once", "later"]


@contextmanager
def no_room_for_files() -> Iterator[None]:
    """Any file may be made, and nothing be written to it."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # Python ignores SIGXFSZ
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_no_marker(tmp_path: Path) -> None:
    state = State(str(tmp_path))
    with no_room_for_files(), pytest.raises(OSError, match="File too large"):
        state.mark_frozen(seconds=600)
    assert not state.frozen
    assert os.listdir(tmp_path) == ["qga.state"]
    assert not State(str(tmp_path)).frozen


def test_a_full_disk_leaves_the_state_file_unchanged(tmp_path: Path) -> None:
    state = State(str(tmp_path))
    with no_room_for_files(), pytest.raises(QgaError):
        state.next_handle()
    assert os.listdir(tmp_path) == ["qga.state"]
    assert content(tmp_path) == "[global]\nfd_counter=1000\n"


@pytest.mark.parametrize("text", [b"", b"[fro", b"[frozen]\n", b"\xff\0\n", b"[frozen]\nboot=1e"])
def test_a_marker_that_does_not_say_of_which_boot_it_is(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "qga.state.isfrozen").write_bytes(text)
    state = State(str(tmp_path))
    assert (state.frozen, state.doubtful) == (True, True)
    state.clear_frozen()
    state.mark_frozen()
    assert (state.frozen, state.doubtful) == (True, False)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_a_marker_that_is_not_a_file(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "qga.state.isfrozen")
    assert State(str(tmp_path)).doubtful


def test_a_marker_that_stays_is_reported_and_does_not_keep_the_agent_frozen(tmp_path: Path) -> None:
    done = []
    (tmp_path / "qga.state.isfrozen").mkdir()
    state = State(str(tmp_path))
    state.when_thawed(lambda: done.append("later"))
    with pytest.raises(OSError, match=r"qga\.state\.isfrozen"):
        state.clear_frozen()
    assert not state.frozen
    assert done == ["later"]


def test_files_without_end_are_not_read_to_it(tmp_path: Path) -> None:
    for name in ("qga.state", "qga.state.isfrozen"):
        (tmp_path / name).symlink_to("/dev/zero")
    state = State(str(tmp_path))
    assert state.doubtful
    assert state.next_handle() == 1000


@pytest.mark.parametrize("text", [b"\0" * 100, b"[global]\nfd_counter=7\n\0\0"])
def test_a_file_after_a_power_failure(tmp_path: Path, text: bytes) -> None:
    """It may have NULs for what was not written, and QEMU's agent starts then."""
    (tmp_path / "qga.state").write_bytes(text)
    assert State(str(tmp_path)).next_handle() == (1000 if text[0] == 0 else 7)
