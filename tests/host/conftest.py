"""qgactl at a real guest: the one that the tests of the guest have booted."""

from __future__ import annotations

from tests.guest.conftest import agent, guest, person, pytest_runtest_makereport

__all__ = ["agent", "guest", "person", "pytest_runtest_makereport"]
