"""YAML as PyYAML reads it (YAML 1.1): what is written is what comes back."""

from __future__ import annotations

from typing import Any

import pytest
import yaml as pyyaml
from hypothesis import given
from hypothesis import strategies as st

from qga.ctl.units import amount_of
from qga.ctl.yamltext import yaml

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
) | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize("length", [999, 1000, 1001, 1022, 1024, 5000])
@pytest.mark.parametrize("value", [None, "x", [1, [2]], {"a": {"b": []}}])
def test_a_long_key(length: int, value: Any) -> None:
    """A parser looks 1024 characters ahead for the colon."""
    written = {"k" * length: value, "next": [{"é" * length: value}]}
    assert pyyaml.safe_load(yaml(written)) == written


@given(VALUES)
def test_it_comes_back(value: Any) -> None:
    assert pyyaml.safe_load(yaml(value)) == value


@pytest.mark.parametrize(
    "word",
    [
        *(
            "yes",
            "No",
            "on",
            "null",
            "~",
            "1e3",
            "0x1",
            "1:30",
            "2026-11-25",
            "=",
            "<<",
            "a: b",
            "a #b",
        ),
        "- a",
        "",
        " a",
        "a ",
        "\x1b[2J",
        "\U0001f600",
        "\x85",
        "\u2028",
        "it's",
        "...",
        "---",
        "[",
        "!x",
    ],
)
def test_text_stays_text(word: str) -> None:
    assert pyyaml.safe_load(yaml({"key": [word]})) == {"key": [word]}
    assert yaml(word).isprintable()


def test_how_it_looks() -> None:
    value = {"name": "web", "disks": [{"name": "vda", "size": 3}, []], "os": {"id": None}, "e": {}}
    assert yaml(value) == (
        "name: web\ndisks:\n- name: vda\n  size: 3\n- []\nos:\n  id: null\ne: {}"
    )


def test_an_amount_in_the_unit_of_the_whole() -> None:
    assert amount_of(0, 3 * 1024**3) == "0.0 of 3.0 GiB"
    assert amount_of(1024**3, 3 * 1024**3) == "1.0 of 3.0 GiB"
    assert amount_of(7, 900) == "7 of 900 B"
