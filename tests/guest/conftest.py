"""Fixtures for tests in the shared guest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import hardware, users
from .agent_socket import AgentSocket
from .vm import Guest


@pytest.fixture(scope="session")
def disks(shared_guest: Guest) -> None:
    """Partition and mount the guest's disks as described in `hardware`."""
    shared_guest.run(["/bin/sh", "-ec", hardware.SETUP], timeout=300)


@pytest.fixture
def agent(guest: Guest) -> Iterator[AgentSocket]:
    """A synchronized connection to the agent under test."""
    with guest.connect() as connected:
        yield connected


@pytest.fixture
def logged_in(guest: Guest) -> Iterator[None]:
    """Root logged in on a terminal of the guest."""
    with users.logged_in(guest):
        yield
