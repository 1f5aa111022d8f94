"""What has no counterpart in QEMU's agent is still measured, with sizes too small for a result."""

from __future__ import annotations

import pytest

from tests.bench import events, forwarding, programs, vsock
from tests.bench.measures import MIB
from tests.guest.vsock import VsockGuest

pytestmark = pytest.mark.timeout(900)


def test_programs(guest: VsockGuest) -> None:
    found = programs.measure(guest, 2)
    assert {"as root", "as nobody", "by QEMU's agent", "by ssh"} < found.keys()
    assert all(0 < first <= end for first, end in found.values())
    assert "| as nobody, within limits | " in programs.table(found)


def test_connections(guest: VsockGuest) -> None:
    found = forwarding.measure(guest, 20, 2)
    assert found.keys() == {"qga-connect", "data port", "ssh -L"}
    assert all(value > 0 for each in found.values() for value in each.values())
    assert len(forwarding.table(found).splitlines()) == 2 + 4


def test_events(guest: VsockGuest) -> None:
    found = events.measure(guest, 0.5)
    assert len(found) == 3
    assert min(found.values()) >= 0
    assert len(events.table(found).splitlines()) == 2 + 3


def test_vsock(guest: VsockGuest) -> None:
    figures = vsock.measure(guest, vsock.Size(rounds=1, pings=20, transferred=4 * MIB))
    assert list(figures) == ["virtio-serial", "vsock"]
    assert all(value > 0 for each in figures.values() for value in each.values())
    assert len(vsock.table(figures).splitlines()) == 2 + 5
