"""One domain for all the tests of this folder, whatever they do to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .domain import Domain


@pytest.fixture(scope="package")
def machine() -> Iterator[Domain]:
    with Domain() as machine:
        machine.make_data()
        yield machine


@pytest.fixture
def domain(machine: Domain) -> Domain:
    """The domain, running: a test that ends it need not start it again."""
    if machine.state() != "running":
        machine.start()
    return machine


@pytest.fixture(scope="package")
def person(machine: Domain) -> str:
    """The name of an account with a home."""
    machine.run(["useradd", "--create-home", "--shell=/bin/sh", "person"])
    return "person"
