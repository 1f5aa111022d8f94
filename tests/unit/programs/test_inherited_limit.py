"""The limit on open files, while a program is started."""

from __future__ import annotations

import os
import resource
from collections.abc import Collection

import pytest

from qga.programs import open_files
from qga.programs.inherited_limit import inherited_limit

SOFT, HARD = resource.getrlimit(resource.RLIMIT_NOFILE)
LOW = 200


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


def test_without_new_files_it_looks_how_many_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    at_hand = os.open("/", os.O_PATH)
    os.close(at_hand)
    monkeypatch.setattr(open_files, "inherited", (at_hand + 64, HARD))
    with inherited_limit() as limit:
        assert limit is not None
