"""One guest of the matrix for all of its tests, and the page with their results.

QGA_TEST_GUESTS=all runs all guests instead of those of every run, and writes docs/tested.md.
QGA_TEST_GUESTS with names and semicolons between them runs those.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.guest.machines import MACHINES
from tests.guest.vm import Guest

from . import newest
from .recipes import GUESTS, Recipe
from .results import Facts, Results

IN_EVERY_RUN = "Debian 12;Debian 13;Debian 13, sysvinit;Debian 13, OpenRC"
CHOSEN = os.environ.get("QGA_TEST_GUESTS", "")
NAMES = list(GUESTS) if CHOSEN == "all" else (CHOSEN or IN_EVERY_RUN).split(";")
RESULTS = Results()


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def recipe(name: str) -> Recipe:
    return GUESTS[name]


@pytest.fixture(scope="module")
def guest(recipe: Recipe) -> Iterator[Guest]:
    """The guest, in which the release's own agent serves the host's port."""
    with Guest(hardware(recipe), image=recipe.image, machine=MACHINES[recipe.arch]) as guest:
        guest.qmp("set-action", reboot="reset", shutdown="pause")
        yield guest


def hardware(recipe: Recipe) -> Callable[[Path], list[str]]:
    machine = MACHINES[recipe.arch]

    def of(folder: Path) -> list[str]:
        # AppArmor reports by the kernel's audit.
        options = machine.kernel_options.replace(" audit=0", "")
        return ["-append", options, *newest.disk(folder, machine)]

    return of


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "only_in(**recipe): run in guests of such a recipe")
    config.addinivalue_line("markers", "rarely_in(**recipe): not part of every run in those")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = [item for item in items if applies(item)]


def applies(item: pytest.Item) -> bool:
    only, rarely = (item.get_closest_marker(name) for name in ("only_in", "rarely_in"))
    if only is not None and not fits(item, only):
        return False
    return CHOSEN != "" or rarely is None or not fits(item, rarely)


def fits(item: pytest.Item, mark: pytest.Mark) -> bool:
    assert isinstance(item, pytest.Function)
    recipe = GUESTS[str(item.callspec.params["name"])]
    return all(getattr(recipe, name) == value for name, value in mark.kwargs.items())


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect outcomes, in the process that gets those of all others."""
    name = report.nodeid.partition("[")[2].rstrip("]")
    if name not in GUESTS or (report.when != "call" and report.passed):
        return
    RESULTS.add(name, report.location[2].partition("[")[0], report.passed)
    for key, value in report.user_properties:
        if key == "facts" and isinstance(value, (list, tuple)):
            RESULTS.facts[name] = Facts(*value)


def pytest_sessionfinish(session: pytest.Session) -> None:
    option = session.config.option
    chosen_by_name = option.keyword or option.markexpr  # -k, -m: some tests of a guest
    if (
        CHOSEN
        and RESULTS.facts
        and not chosen_by_name
        and not hasattr(session.config, "workerinput")
    ):
        RESULTS.write()
