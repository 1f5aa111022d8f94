"""The limit on open files, while a program is started."""

from __future__ import annotations

import os
import resource
from collections.abc import Collection, Iterator

import pytest

from qga.programs import open_files
from qga.programs.inherited_limit import inherited_limit
from qga.programs.spawn import spawn

SOFT, HARD = resource.getrlimit(resource.RLIMIT_NOFILE)
LOW = 600  # more than tests before have left open, and less than the usual limit of 1024


@pytest.fixture(autouse=True)
def raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_files, "inherited", (LOW, HARD))


@pytest.mark.parametrize("opened", [(), (LOW - 65,)])
def test_it_is_lowered_meanwhile(opened: Collection[int]) -> None:
    with inherited_limit(opened) as limit:
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (LOW, HARD)
        assert limit is None
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (SOFT, HARD)


def test_the_child_lowers_it_if_the_agent_has_too_many_files() -> None:
    with inherited_limit((3, LOW - 64)) as limit:
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (SOFT, HARD)
        assert limit is not None


@pytest.fixture
def many() -> Iterator[list[int]]:
    """More open files than the limit of programs."""
    files = [os.open("/", os.O_PATH) for _ in range(LOW + 100)]
    yield files
    for fd in files:
        os.close(fd)


@pytest.mark.parametrize("gaps", range(2, 8))
def test_a_few_low_descriptors_are_free(many: list[int], gaps: int) -> None:
    """Those that are opened for the program fill the gaps, so that none is left for Popen."""
    for _ in range(gaps):
        os.close(many.pop(10))
    output, its_output = os.pipe()
    pid = spawn(["sh", "-c", "ulimit -n"], None, {1: its_output})
    assert os.read(output, 100) == b"%d\n" % LOW
    assert os.waitpid(pid, 0)[1] == 0
    os.close(output)
    os.close(its_output)


def test_without_new_files_it_looks_how_many_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    at_hand = os.open("/", os.O_PATH)
    os.close(at_hand)
    monkeypatch.setattr(open_files, "inherited", (at_hand + 64, HARD))
    with inherited_limit() as limit:
        assert limit is not None
