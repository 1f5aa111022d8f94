"""A host whose only guest is `web`, for tools that are started there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guest.vm import Guest
from tests.host.day import Day

from .ansible_runs import unpacked_wheel


@pytest.fixture(scope="session")
def web(shared_guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Day:
    """A directory to work in, and the environment of that host: `web.work` and `web.env`."""
    return Day(shared_guest, tmp_path_factory.mktemp("web"))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the content of the wheel."""
    return unpacked_wheel(tmp_path_factory.mktemp("wheel"))
