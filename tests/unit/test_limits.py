"""docs/limits.md agrees with the code: each row with its constant, each limit with a row."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from qga.settings.config import ChannelConfig, Config

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs/limits.md"

MARKS = re.search(r"in its name: (.*?)\.", PAGE.read_text(), re.DOTALL)
WORDS = re.findall(r"[A-Z]+", MARKS[1]) if MARKS else []
IS_LIMIT = re.compile(rf"(^|_)({'|'.join(WORDS)})(_|$)")

NO_LIMITS = {
    "qga.client.commands.exec.DELAY_GROWTH": "a factor",
    "qga.mcp.programs.DELAY_GROWTH": "a factor",
    "qga.client.monitoring.metrics.SECTOR": "a unit",
    "qga.client.waiting.PAUSE_GROWTH": "a factor",
    "qga.client.tunnel_ends.DELAY_GROWTH": "a factor",
    "qga.ctl.call.ALIKE": "how alike two names are, from 0 to 1",
    "qga.ctl.relay.DELAY_GROWTH": "a factor",
    "qga.ctl.top_view.HOT": "a share",
    "qga.ctl.top_view.WARM": "a share",
    "qga.memory._M_ARENA_MAX": "a number of <malloc.h>",
}

UNITS = {"": 1, "ms": 0.001, "s": 1, "min": 60, "h": 3600, "KiB": 1024, "MiB": 1024**2}
VALUE = re.compile(r"([\d,.]+) ?([A-Za-z]*)( - 1)?")


def rows() -> dict[str, str]:
    """For each constant of the page the value that stands there."""
    cells = re.findall(r"^\| [^|]+ \| ([^|]+) \| [^|]+ \| `([^`]+)` \|$", PAGE.read_text(), re.M)
    assert len({constant for _, constant in cells}) == len(cells), "a constant has two rows"
    return {constant: value for value, constant in cells}


def number(text: str) -> float:
    found = VALUE.fullmatch(text)
    assert found, f"{text} is not a number with one of {', '.join(UNITS)}"
    return float(found[1].replace(",", "")) * UNITS[found[2]] - bool(found[3])


def constant(name: str) -> Any:
    """The value of a constant of a module, or the default of a field of the configuration."""
    place, _, last = name.rpartition(".")
    module, _, owner = place.rpartition(".")
    if owner in ("Config", "ChannelConfig"):
        return getattr(import_module(module), owner)._field_defaults[last]
    return getattr(import_module(place), last)


def assigned(source: str) -> Iterator[str]:
    """The constants that a module assigns at its top level."""
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        for target in targets:
            for each in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(each, ast.Name) and each.id.strip("_").isupper():
                    yield each.id


def is_limit(name: str, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, float) or bool(IS_LIMIT.search(name))


def limits() -> Iterator[str]:
    for path in (*REPOSITORY.glob("qga/**/*.py"), *REPOSITORY.glob("commands/*.py")):
        place = path.relative_to(REPOSITORY).with_suffix("")
        module = ".".join(place.parts).removesuffix(".__init__")
        module = module if module.startswith("qga") else f"qga.{module}"
        for name in assigned(path.read_text()):
            if is_limit(name, getattr(import_module(module), name)):
                yield f"{module}.{name}"
    for kind in (Config, ChannelConfig):
        for field, value in kind._field_defaults.items():
            if isinstance(value, int) and not isinstance(value, bool):
                yield f"{kind.__module__}.{kind.__name__}.{field}"


@pytest.mark.parametrize("name", rows())
def test_a_row_has_the_value_of_its_constant(name: str) -> None:
    assert number(rows()[name]) == pytest.approx(constant(name), abs=1e-9, rel=0)


def test_every_limit_has_a_row() -> None:
    missing = set(limits()) - set(rows()) - set(NO_LIMITS)
    assert not missing, f"add a row to docs/limits.md for {', '.join(sorted(missing))}"


def test_what_is_said_to_be_no_limit_is_there() -> None:
    assert set(NO_LIMITS) <= set(limits())


def test_what_counts_as_a_limit() -> None:
    assert len(WORDS) > 5
    assert [is_limit(name, 1) for name in ("MAX_FILES", "_MOST", "SIZE", "MAXIMAL")] == [
        *(True, True, False, False)
    ]
    assert is_limit("SLOW", 0.2)
    assert not is_limit("MAX_FILES", True)
    assert list(assigned("A = 1\nb = 2\nC, _D = 1, 2\nE: int = 3\ndef f():\n    G = 1\n")) == [
        *("A", "C", "_D", "E")
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [("64 MiB", 2**26), ("64 MiB - 1", 2**26 - 1), ("1,024", 1024), ("2 ms", 0.002), ("0 s", 0)],
)
def test_values_are_read(text: str, value: float) -> None:
    assert number(text) == value
