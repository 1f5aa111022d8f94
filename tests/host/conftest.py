"""qgactl at a real guest: the one that the tests of the guest have booted."""

from __future__ import annotations

from tests.guest.conftest import agent

__all__ = ["agent"]
