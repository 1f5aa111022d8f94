"""The guest of tests/guest, for what the host does with it."""

from __future__ import annotations

from tests.guest.conftest import agent, guest

__all__ = ["agent", "guest"]
