"""One of each agent for the whole folder: they are strangers to each other, and so to no test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.differential.agents import OURS, SUITES, Agent, original


@pytest.fixture(scope="package", params=SUITES)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="package", name="original")
def running_original(version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    yield from running(original(version), tmp_path_factory.mktemp("original"))


@pytest.fixture(scope="package")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    yield from running(original("11.1"), tmp_path_factory.mktemp("newest"))


@pytest.fixture(scope="package")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    yield from running(OURS, tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="package")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files") / "scratch"


def running(command: Sequence[str], folder: Path) -> Iterator[Agent]:
    agent = Agent(command, folder)
    yield agent
    agent.close()
