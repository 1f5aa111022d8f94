"""One guest for all tests that need one; which tests run side by side; what failures show."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.guest import hardware, service
from tests.guest.vm import Guest, GuestError

HERE = Path(__file__).parent
# What shares a domain of libvirt, and what builds packages; other files are rows of their own.
ROWS = {"clients": "domain", "packaging": "packages", "guest/test_package.py": "packages"}


def pytest_configure() -> None:
    """Have what the tests start heed signals that nohup(1) and a shell's background jobs ignore.

    What is handled here is back at its default after execve(2); what is ignored stays ignored.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests that share what takes long to make into one process, the longest row first."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(row_of(item)))
    items.sort(key=lambda item: row_of(item) != "guest")


def row_of(item: pytest.Item) -> str:
    """The name of the row in which a test runs: tests of one row run one after the other."""
    if "guest" in getattr(item, "fixturenames", ()):
        return "guest"
    file = item.path.relative_to(HERE)
    return ROWS.get(file.as_posix(), ROWS.get(file.parts[0], str(file)))


@pytest.fixture(scope="session")
def guest() -> Iterator[Guest]:
    """A booted guest, shared: a test leaves it as it found it."""
    with Guest(hardware.disks) as running:
        yield running


@pytest.fixture(scope="session")
def person(guest: Guest) -> str:
    """The name of an account with a home."""
    guest.run(["useradd", "--create-home", "--shell=/bin/sh", "person"])
    return "person"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, None]:
    outcome = yield
    report = outcome.get_result()
    for guest in Guest.running if report.failed else ():
        report.sections.append(("the guest's journal", journal(guest)))
        report.sections.append(("the guest's console", guest.console_tail()))


def journal(guest: Guest) -> str:
    """The last that the agent under test and systemd said about it."""
    command = ["journalctl", "--no-pager", "--quiet", "--lines=40", "--output=short-precise"]
    try:
        return guest.run([*command, f"--unit={service.UNIT}", "--unit=by-hand-*"]).stdout
    except (GuestError, OSError) as error:
        return f"cannot be read: {error}"
