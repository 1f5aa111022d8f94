"""One guest for all tests that need one; which tests run side by side; what failures show."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.guest import hardware, service
from tests.guest.left_overs import LeftOvers
from tests.guest.vm import Guest, GuestError
from tests.guest.vsock import VsockGuest

# What shares a domain of libvirt, and what builds packages.
ROWS = {"clients": "domain", "packaging": "packages", "guest/test_package.py": "packages"}

# That can be handled, without the one by which pytest-timeout measures.
SIGNALS = set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGALRM}

FAILED: set[Path] = set()
"""Test files in which a test has failed, even if its second try passed."""


def pytest_configure() -> None:
    """Have what the tests start heed signals that nohup(1) and a shell's background jobs ignore.

    What is handled here is back at its default after execve(2); what is ignored stays ignored.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests of one file run in one process, and so do files that share what takes long to make."""
    from xdist.scheduler import LoadFileScheduling

    class Rows(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0].removeprefix("tests/")
            if file.startswith("guest/matrix/"):  # the guests run side by side
                return nodeid.rpartition("[")[2]
            return ROWS.get(file, ROWS.get(file.partition("/")[0], file))

    return Rows(config, log)


def process_state() -> dict[str, object]:
    """What all tests of this process share."""
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
    }
    signals = {number.name: signal.getsignal(number) for number in SIGNALS}
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {**signals, **variables, "directory": os.getcwd(), "open files": files}


@pytest.fixture(autouse=True)
def unchanged_process() -> Iterator[None]:
    """A test leaves its process as it found it, for the next test.

    With SIGPIPE at its default, some later test would end the process.
    """
    before = process_state()
    yield
    assert process_state() == before, "this test has changed its process and not changed it back"


@pytest.fixture(scope="session")
def shared_guest() -> Iterator[VsockGuest]:
    """The booted guest, for fixtures that last as long as it does."""
    with VsockGuest(hardware.disks) as running:
        running.run(["/bin/sh", "-ec", hardware.AWAIT], timeout=600)
        yield running


@pytest.fixture(scope="session")
def left_overs(shared_guest: VsockGuest) -> LeftOvers:
    return LeftOvers(shared_guest)


@pytest.fixture(scope="module")
def guest(
    request: pytest.FixtureRequest, shared_guest: VsockGuest, left_overs: LeftOvers
) -> Iterator[VsockGuest]:
    """A booted guest, shared: a file of tests leaves it as it found it."""
    yield shared_guest
    left = left_overs.tidy_up(request.node.nodeid)
    if request.path not in FAILED:  # a test that fails may leave something
        assert left == [], "this file of tests has left something in the shared guest"


@pytest.fixture(scope="session")
def person(shared_guest: Guest) -> str:
    """The name of an account with a home."""
    shared_guest.run(["useradd", "--create-home", "--shell=/bin/sh", "person"])
    return "person"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    outcome = yield
    report = outcome.get_result()
    if report.failed and report.when != "teardown":
        FAILED.add(item.path)
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
