"""The comparison of vsock with virtio-serial still measures everything."""

from __future__ import annotations

import pytest

from tests.bench.measures import MIB
from tests.bench.vsock import Size, measure, table
from tests.guest.vsock import VsockGuest

pytestmark = pytest.mark.timeout(900)


def test_every_row_is_measured(guest: VsockGuest) -> None:
    figures = measure(guest, Size(rounds=1, pings=20, transferred=4 * MIB))
    assert list(figures) == ["virtio-serial", "vsock"]
    assert all(value > 0 for each in figures.values() for value in each.values())
    assert len(table(figures).splitlines()) == 2 + 5
