"""The list of differences from QEMU's agent, and the page made from it."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import differences

TESTS = Path(differences.__file__).parent
LIST = Path(differences.__file__)


def strings_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.fixture(scope="module")
def claimed() -> set[str]:
    """The strings of all tests but these."""
    paths = set(TESTS.rglob("*.py")) - {LIST, Path(__file__)}
    return {string for path in paths for string in strings_of(path)}


@pytest.mark.parametrize("name", differences.BY_NAME)
def test_each_is_asserted_by_a_test(claimed: set[str], name: str) -> None:
    assert name in claimed


def test_names_are_unique() -> None:
    assert set(Counter(record.name for record in differences.RECORDS).values()) == {1}


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(KeyError):
        differences.differs("no-such-difference")


def test_lists_of_tests_name_records() -> None:
    from tests.differential.differences import DIFFERENCES
    from tests.guest import differences as in_guests

    in_any = (in_guests.IN_ANY_GUEST, in_guests.BEFORE_9_1, in_guests.ON_ARM64)
    lists = (DIFFERENCES, in_guests.DIFFERENCES, *in_any)
    named = {each.record for listed in lists for each in listed}
    assert named <= set(differences.BY_NAME)


def test_the_page_is_up_to_date() -> None:
    page = TESTS.parent / "docs/differences.md"
    assert page.read_text(encoding="utf-8") == differences.page(), "run `make docs`"
