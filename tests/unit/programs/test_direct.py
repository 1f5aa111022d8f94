"""Programs that posix_spawn(3) starts, without subprocess."""

from __future__ import annotations

import os
from collections.abc import Iterator
from signal import SIGSYS

import pytest

from qga.programs import direct
from qga.programs.spawn import Entries


@pytest.fixture(autouse=True)
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "_inherits_nothing", False)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    os.close(ends[0])


def output(script: str, pipe: tuple[int, int], variables: Entries | None = None) -> list[str]:
    """What a shell prints, which must end well."""
    read, write = pipe
    assert direct.can_start({1: write})
    pid = direct.start(b"/bin/sh", [b"sh", b"-c", script.encode()], variables or {}, {1: write})
    os.close(write)
    with os.fdopen(os.dup(read)) as file:
        text = file.read()
    assert os.waitpid(pid, 0) == (pid, 0)
    return text.split()


def test_no_descriptor_is_inherited_that_a_library_has_opened(pipe: tuple[int, int]) -> None:
    leaked = os.open("/", os.O_PATH)
    os.set_inheritable(leaked, True)
    try:
        assert output("exec ls /proc/self/fd", pipe) == ["0", "1", "2", "3"]
    finally:
        os.close(leaked)


def test_what_is_missing_is_the_null_device(pipe: tuple[int, int]) -> None:
    assert output("readlink /proc/self/fd/0 /proc/self/fd/2", pipe) == ["/dev/null"] * 2


def test_signals_that_python_ignores_are_back(pipe: tuple[int, int]) -> None:
    _, ignored = output("exec grep SigIgn /proc/self/status", pipe)
    assert int(ignored, 16) % (1 << SIGSYS) == 0  # glibc ignores two of its own above


def test_a_session_of_its_own(pipe: tuple[int, int]) -> None:
    fields = output("exec cat /proc/self/stat", pipe)
    assert fields[0] == fields[4] == fields[5]  # pid, process group, session


def test_the_environment_keeps_its_order_and_what_is_there_twice(pipe: tuple[int, int]) -> None:
    entries = Entries(["B=1", "A=2", "B=3"])
    assert output("tr '\\0' '\\n' </proc/$$/environ; true", pipe, entries)[:3] == [
        "B=1",
        "A=2",
        "B=3",
    ]


@pytest.mark.parametrize("streams", [{0: 2}, {1: 0, 2: 7}])
def test_not_for_descriptors_that_would_be_in_each_others_way(streams: dict[int, int]) -> None:
    assert not direct.can_start(streams)


def test_not_where_it_is_unknown_what_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "_DESCRIPTORS", "/nowhere")
    assert not direct.can_start({})


def test_an_error_of_exec() -> None:
    with pytest.raises(FileNotFoundError):
        direct.start(b"/nowhere", [b"x"], {}, {})
