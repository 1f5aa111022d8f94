"""Files that are left open: which are closed, and when."""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qga.errors import QgaError
from qga.policy.caller import Caller
from qga.policy.policy import Policy
from qga.policy.shares import Descriptors
from qga.settings.config import ChannelConfig

files: Any = import_module("qga.commands.files")

MAIN = Caller("main", Policy(ChannelConfig("main", "", "", limits_handles=3)))
OTHER = Caller("other", Policy(ChannelConfig("other", "", "", limits_handles=3)))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Group:
    """The commands, without a loop that runs: hours pass at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.without_client = {"main"}
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.agent = SimpleNamespace(
            loop=SimpleNamespace(
                call_later=self._call_later,
            ),
            worker=SimpleNamespace(submit=lambda job, done: done(job(), None)),
            descriptors=Descriptors(1024, [ChannelConfig(), ChannelConfig("other")]),
            state=SimpleNamespace(next_handle=itertools.count(1).__next__),
            channels_without_client=lambda: self.without_client,
            frozen=False,
        )
        self.commands = files.Files(self.agent)

    def _call_later(self, seconds: float, call: Callable[[], None]) -> SimpleNamespace:
        timer = (seconds, call)
        self.timers.append(timer)
        return SimpleNamespace(cancel=lambda: self.timers.remove(timer))

    def open(self, caller: Caller = MAIN) -> int:
        handle: int = self.commands.guest_file_open(str(self.path), caller=caller)
        return handle

    def is_open(self, handle: int, caller: Caller = MAIN) -> bool:
        try:
            self.commands.guest_file_read(handle, 0, caller=caller, may_wait=True)
        except QgaError as error:
            assert str(error) == f"handle '{handle}' has not been found"
            return False
        return True

    def run_timer(self) -> None:
        [(seconds, call)] = self.timers
        self.timers.clear()
        assert seconds == files.UNUSED
        call()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(files, "monotonic", clock)
    return clock


@pytest.fixture
def group(tmp_path: Path, clock: Clock) -> Iterator[Group]:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    gc.collect()  # no object of another test may close a descriptor meanwhile
    before = len(os.listdir("/proc/self/fd"))
    group = Group(path)
    yield group
    for handle, file in list(group.commands._files.items()):
        group.commands.guest_file_close(handle, caller=Caller(file.channel, MAIN.policy))
    assert len(os.listdir("/proc/self/fd")) == before


def test_one_that_nobody_has_used_for_long_makes_room_for_a_new_one(
    group: Group, clock: Clock
) -> None:
    """As when Proxmox VE has left one open after each backup that failed; all without a restart."""
    left = [group.open() for _ in range(3)]
    theirs = group.open(OTHER)
    clock.now = files.UNUSED - 1
    with pytest.raises(QgaError, match="3 files are already open"):
        group.open()
    assert group.is_open(left[1]), "and was used just now"
    clock.now = files.UNUSED + 1
    group.open()
    assert [group.is_open(handle) for handle in left] == [False, True, False]
    assert group.is_open(theirs, OTHER), "it is in nobody's way"


def test_those_of_a_channel_without_a_client_are_closed_by_themselves(
    group: Group, clock: Clock
) -> None:
    ours, theirs = group.open(), group.open(OTHER)
    group.commands.on_client_left(MAIN)
    clock.now = files.UNUSED - 1
    young = group.open()
    clock.now = files.UNUSED + 1
    group.run_timer()
    assert [group.is_open(handle) for handle in (ours, young)] == [False, True]
    assert group.is_open(theirs, OTHER), "its client is there"


def test_nothing_is_closed_while_filesystems_are_frozen(group: Group, clock: Clock) -> None:
    handle = group.open()
    group.commands.on_client_left(MAIN)
    clock.now = files.UNUSED + 1
    group.agent.frozen = True
    group.run_timer()
    assert group.is_open(handle)


def test_a_timer_runs_only_while_files_are_open_whose_client_has_left(
    group: Group, clock: Clock
) -> None:
    """One that is pending costs each request some microseconds."""
    group.commands.on_client_left(MAIN)
    assert not group.timers, "no file was open"
    handle = group.open()
    assert not group.timers, "its client is there"
    group.commands.on_client_left(MAIN)
    group.commands.on_client_left(OTHER)
    assert len(group.timers) == 1
    group.commands.guest_file_close(handle, caller=MAIN)
    assert not group.timers


def test_a_file_that_was_opened_for_a_client_that_had_left_is_closed_too(
    group: Group, clock: Clock
) -> None:
    group.commands.on_client_left(MAIN)
    handle = group.open()
    group.commands.on_unheard("guest-file-open")
    clock.now = files.UNUSED + 1
    group.run_timer()
    assert not group.is_open(handle)


def test_the_timer_continues_until_the_last_one_is_closed(group: Group, clock: Clock) -> None:
    handle = group.open()
    group.commands.on_client_left(MAIN)
    clock.now = files.UNUSED - 1
    assert group.is_open(handle), "and was used just now"
    clock.now = files.UNUSED + 1
    group.run_timer()
    assert group.timers
    clock.now = 2 * files.UNUSED + 1
    group.run_timer()
    assert not group.is_open(handle)
    assert not group.timers


def test_the_timer_stops_when_the_client_is_back(group: Group, clock: Clock) -> None:
    handle = group.open()
    group.commands.on_client_left(MAIN)
    group.without_client = set()
    clock.now = files.UNUSED + 1
    group.run_timer()
    assert group.is_open(handle)
    assert not group.timers


def test_one_that_is_in_use_stays(group: Group, clock: Clock) -> None:
    handle = group.open()
    group.commands.on_client_left(MAIN)
    clock.now = files.UNUSED + 1
    with group.commands._files[handle].lock:
        group.run_timer()
    assert group.is_open(handle)
