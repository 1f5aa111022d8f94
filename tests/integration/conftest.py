"""An agent and a client, as most tests here need them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.agent_process import AgentProcess, Client, listening
from tests.integration.gates import Gate


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with listening(tmp_path_factory.mktemp("agent"), umask=0o022) as agent:
        yield agent


@pytest.fixture
def client(agent: AgentProcess) -> Iterator[Client]:
    with agent.connect() as client:
        yield client


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")
