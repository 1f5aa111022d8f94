"""One guest for all the tests of this folder; what it has to say when one of them fails."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from . import service
from .agent_socket import AgentSocket
from .vm import Guest, GuestError

RUNNING = pytest.StashKey[Guest]()


@pytest.fixture(scope="session")
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A booted guest, shared: a test leaves it as it found it."""
    with Guest() as running:
        request.config.stash[RUNNING] = running
        yield running
        del request.config.stash[RUNNING]


@pytest.fixture
def agent(guest: Guest) -> Iterator[AgentSocket]:
    """A connection to the agent under test, in step with it."""
    with guest.connect() as connected:
        yield connected


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    outcome = yield
    report = outcome.get_result()
    guest = item.config.stash.get(RUNNING, None)
    if report.failed and guest is not None:
        report.sections.append(("the guest's journal", journal(guest)))
        report.sections.append(("the guest's console", guest.console_tail()))


def journal(guest: Guest) -> str:
    """The last that the agent under test and systemd said about it."""
    command = ["journalctl", "--no-pager", "--quiet", "--lines=40", "--output=short-precise"]
    try:
        return guest.run([*command, f"--unit={service.UNIT}", "--unit=by-hand-*"]).stdout
    except (GuestError, OSError) as error:
        return f"cannot be read: {error}"
