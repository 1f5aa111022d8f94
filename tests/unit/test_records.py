"""qga.records makes what typing makes, and nothing is compiled for it at the start."""

from __future__ import annotations

import subprocess
import sys
import typing
from pathlib import Path
from typing import Any, Optional

import pytest

from qga import NotRequired, records


class Point(records.NamedTuple):
    """Where it is."""

    x: int
    y: int = 2
    name: Optional[str] = None

    @property
    def both(self) -> int:
        return self.x + self.y

    def moved(self, x: int) -> Point:
        return self._replace(x=x)


class Base(records.TypedDict):
    """A struct."""

    size: int
    kind: NotRequired[str]


class More(Base, total=False):
    extra: list[int]


Wire = records.TypedDict("Wire", {"buf-b64": str, "eof": NotRequired[bool]})


def test_a_named_tuple() -> None:
    point = Point(1)
    assert tuple(point) == (1, 2, None)
    assert repr(point) == "Point(x=1, y=2, name=None)"
    assert point.both == 3
    assert point.moved(5) == Point(5, 2)
    assert Point._fields == ("x", "y", "name")
    assert (Point.__doc__, Point.__module__) == ("Where it is.", __name__)
    assert isinstance(point, tuple)
    assert typing.get_type_hints(Point) == {"x": int, "y": int, "name": Optional[str]}
    with pytest.raises(TypeError):
        Point()  # type: ignore[call-arg]


def test_a_struct() -> None:
    made: Any = More(size=1, extra=[2])
    assert type(made) is dict
    assert made == {"size": 1, "extra": [2]}
    assert (Base.__doc__, Base.__module__) == ("A struct.", __name__)
    assert list(typing.get_type_hints(More)) == ["size", "kind", "extra"]
    assert typing.get_type_hints(More)["extra"] == list[int]
    assert More.__required_keys__ == frozenset({"size", "kind"})  # NotRequired is read later
    assert More.__total__ is False


def test_a_struct_whose_members_are_no_names() -> None:
    assert Wire.__name__ == "Wire"
    assert Wire.__module__ == __name__
    assert typing.get_type_hints(Wire)["buf-b64"] is str


PROGRAM = """
from qga import agent, cli, daemon
from qga.plugin.discovery import discover
discover(None, print)
print([kind.__name__ for kind in object.__subclasses__() if kind.__name__ == "AST"])
"""


def test_the_agent_compiles_nothing_at_its_start(tmp_path: Path) -> None:
    """Else Python makes the classes of its syntax trees: 0.3 MB."""
    argv = [sys.executable, "-c", PROGRAM]
    environment = {"PYTHONPYCACHEPREFIX": str(tmp_path)}  # as installed: compiled beforehand
    for expected in ("['AST']\n", "[]\n"):
        done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environment)
        assert done.stdout == expected, done.stderr


def annotate(form: int) -> dict[str, Any]:
    """What Python 3.14 has in the body of a class without the __future__ import."""
    assert form == 1  # annotationlib.Format.VALUE
    return {"x": int, "y": str}


def test_a_named_tuple_of_python_3_14() -> None:
    (made,) = records.NamedTuple.__mro_entries__(())  # type: ignore[attr-defined]
    body = {"__annotate_func__": annotate, "__module__": __name__, "__qualname__": "Pair"}
    assert type(made)("Pair", (), body)(1, "a")._fields == ("x", "y")


def test_a_struct_of_python_3_14() -> None:
    (made,) = records.TypedDict.__mro_entries__(())  # type: ignore[attr-defined]
    struct = type(made)("Pair", (), {"__annotate_func__": annotate, "__module__": __name__})
    assert struct.__annotations__ == {"x": int, "y": str}
    assert struct.__required_keys__ == {"x", "y"}
