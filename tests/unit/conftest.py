"""What many unit tests use, and how random ones run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from qga.programs import spawn
from tests.unit.client_peer import Handler, Peer, Start

# Random tests fail for what they find, never for the time that a busy machine takes.
settings.register_profile("qga", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("qga")


@pytest.fixture(autouse=True)
def environment_of_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs get the environment that the test sets, not that of an earlier test."""
    monkeypatch.setattr(spawn, "_inherited", {})


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts scripted agents, which end with the test."""
    peers: list[Peer] = []

    def start_peer(handlers: dict[str, Handler]) -> Peer:
        peers.append(Peer(tmp_path / f"socket{len(peers)}", handlers))
        return peers[-1]

    yield start_peer
    for peer in peers:
        peer.close()
