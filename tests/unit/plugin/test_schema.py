"""Arguments from annotations: what is accepted, and what is said of the rest."""

from __future__ import annotations

from types import FunctionType
from typing import Any, Literal, Optional, Protocol, TypedDict, Union

import pytest

from qga import Base64, NotRequired, Payload, QgaError, UInt64
from qga.plugin import schema
from qga.plugin.signature import Signature

Colour = Literal["red", "green"]
Where = Union[int, Colour]
Mode = Union[bool, Colour]
Either = Union[Base64, int]


class Point(TypedDict):
    x: int
    y: int


Block = TypedDict("Block", {"phys-index": UInt64, "online": bool, "label": NotRequired[str]})


class Partial(TypedDict, total=False):
    count: int


class Shape(TypedDict):
    points: list[Point]
    weight: NotRequired[float]


class Handlers(Protocol):
    def nothing(self) -> None: ...

    def number(self, number: int) -> int: ...

    def text(self, text: str) -> str: ...

    def encoded(self, encoded: Base64) -> None: ...

    def perhaps(self, perhaps: Optional[Base64] = None) -> None: ...

    def either(self, either: Either) -> None: ...

    def flag(self, flag: bool) -> bool: ...

    def real(self, real: float) -> float: ...

    def unsigned(self, unsigned: UInt64) -> UInt64: ...

    def any(self, any: Any) -> Any: ...

    def colour(self, colour: Colour) -> Colour: ...

    def where(self, where: Where) -> None: ...

    def mode(self, mode: Mode = False) -> None: ...

    def texts(self, texts: list[str]) -> list[str]: ...

    def point(self, point: Point) -> Point: ...

    def blocks(self, blocks: list[Block]) -> None: ...

    def shape(self, shape: Shape) -> Shape: ...

    def partial(self, partial: Partial) -> Payload: ...

    def mixed(
        self, path: str, buf_b64: str, count: Optional[int] = None, *, more: str = "", caller: Any
    ) -> list[Block]: ...


def signature(name: str) -> Signature:
    function = vars(Handlers)[name]
    assert isinstance(function, FunctionType)
    return schema.signature(function, frozenset({"caller"}))


def bind(name: str, **given: Any) -> dict[str, Any]:
    return signature(name).bind({key.replace("_", "-"): value for key, value in given.items()})


def refusal(name: str, **given: Any) -> str:
    with pytest.raises(QgaError) as raised:
        bind(name, **given)
    assert raised.value.error_class == "GenericError"
    return raised.value.desc


def test_base64_is_taken_as_a_string_or_as_it_arrived() -> None:
    arrived = Base64("ZA==", bytearray(b"abc"))
    assert bind("encoded", encoded=arrived)["encoded"] is arrived
    assert bind("encoded", encoded="YWJj")["encoded"].decode() == b"abc"
    assert refusal("encoded", encoded=1) == "Invalid parameter type for 'encoded', expected: string"
    described = {"arguments": {"encoded": "str"}, "returns": None}
    assert signature("encoded").describe() == described


def test_base64_that_may_be_missing_or_something_else() -> None:
    arrived = Base64("ZA==", bytearray(b"abc"))
    assert bind("perhaps", perhaps=arrived)["perhaps"] is arrived
    assert bind("perhaps") == {}
    assert bind("either", either=arrived)["either"].decode() == b"abcd"
    assert bind("either", either="YWJj")["either"].decode() == b"abc"
    assert bind("either", either=7) == {"either": 7}


@pytest.mark.parametrize("name", ["text", "any"])
def test_who_wants_a_string_gets_one_also_if_it_arrived_decoded(name: str) -> None:
    given: dict[str, Any] = {name: Base64("ZA==", bytearray(b"abc"))}
    bound = signature(name).bind(given)
    assert type(bound[name]) is str
    assert bound == given == {name: "YWJjZA=="}
    assert type(given[name]) is str, "which the audit trail logs"


def test_base64_where_it_does_not_fit() -> None:
    arrived = Base64("ZA==", bytearray(b"abc"))
    expected = "Invalid parameter type for 'number', expected: integer"
    assert refusal("number", number=arrived) == expected
    assert refusal("colour", colour=arrived) == refusal("colour", colour="YWJjZA==")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("number", [0, -1, 2**63 - 1, -(2**63)]),
        ("text", ["", "a\0b\u20ac"]),
        ("flag", [True, False]),
        ("real", [1, 1.5, -0.0, 2**64 - 1]),
        ("unsigned", [0, 2**64 - 1]),
        ("any", [None, 1, [{}]]),
        ("colour", ["red", "green"]),
        ("where", [7, "red"]),
        ("mode", [True, "green"]),
        ("texts", [[], ["a", "b"]]),
        ("point", [{"x": 1, "y": 2}]),
        ("blocks", [[], [{"phys-index": 1, "online": True}]]),
        ("blocks", [[{"phys-index": 1, "online": True, "label": "x"}]]),
        ("shape", [{"points": [{"x": 1, "y": 2}]}, {"points": [], "weight": 0.5}]),
        ("partial", [{}, {"count": 1}]),
    ],
)
def test_what_fits_is_passed_on(name: str, values: list[Any]) -> None:
    argument = name
    for value in values:
        bound = signature(name).bind({argument: value})
        assert bound == {argument: value}
        assert type(bound[argument]) is type(value)


def test_a_negative_unsigned_is_taken_modulo() -> None:
    assert bind("unsigned", unsigned=-1) == {"unsigned": 2**64 - 1}
    assert bind("unsigned", unsigned=-(2**63)) == {"unsigned": 2**63}


WRONG_TYPE = "Invalid parameter type for '{}', expected: {}"


@pytest.mark.parametrize(
    ("name", "values", "place", "expected"),
    [
        ("number", ["1", 1.0, True, None, [], 2**63, -(2**63) - 1], "number", "integer"),
        ("text", [1, None, True, []], "text", "string"),
        ("flag", [0, 1, "true", None], "flag", "boolean"),
        ("real", ["1", True, None], "real", "number"),
        ("colour", [1, None, True], "colour", "string"),
        ("where", [None, True, [], {}], "where", "Where"),
        ("where", [1.5], "where", "integer"),
        ("mode", [1, None, [], {}, 1.5], "mode", "Mode"),
        ("texts", ["a", {}, None, 1], "texts", "array"),
        ("texts", [["a", 1]], "texts[1]", "string"),
        ("point", [1, [], None, "x"], "point", "object"),
        ("point", [{"x": 1, "y": "2"}], "point.y", "integer"),
        ("blocks", [[1]], "blocks[0]", "object"),
        ("blocks", [[{"phys-index": 1, "online": 1}]], "blocks[0].online", "boolean"),
        (
            "blocks",
            [[{"phys-index": 1, "online": True, "label": None}]],
            "blocks[0].label",
            "string",
        ),
        ("shape", [{"points": [{"x": 1, "y": 2}, {"x": []}]}], "shape.points[1].x", "integer"),
    ],
)
def test_what_is_of_the_wrong_type(name: str, values: list[Any], place: str, expected: str) -> None:
    for value in values:
        assert refusal(name, **{name: value}) == WRONG_TYPE.format(place, expected)


@pytest.mark.parametrize("value", ["1", 1.0, True, None, 2**64, -(2**63) - 1])
def test_values_that_are_not_uint64(value: Any) -> None:
    assert refusal("unsigned", unsigned=value) == "Parameter 'unsigned' expects uint64"
    found = refusal("blocks", blocks=[{"phys-index": value, "online": True}])
    assert found == "Parameter 'blocks[0].phys-index' expects uint64"


@pytest.mark.parametrize("name", ["colour", "where", "mode"])
def test_a_value_that_the_enum_does_not_have(name: str) -> None:
    assert refusal(name, **{name: "blue"}) == f"Parameter '{name}' does not accept value 'blue'"


@pytest.mark.parametrize(
    ("name", "given", "missing"),
    [
        ("number", {}, "number"),
        ("mixed", {"path": "/"}, "buf-b64"),
        ("point", {"point": {"x": 1}}, "point.y"),
        ("blocks", {"blocks": [{"online": True}]}, "blocks[0].phys-index"),
    ],
)
def test_what_is_missing(name: str, given: dict[str, Any], missing: str) -> None:
    assert refusal(name, **given) == f"Parameter '{missing}' is missing"


@pytest.mark.parametrize(
    ("name", "given", "unexpected"),
    [
        ("nothing", {"x": 1}, "x"),
        ("nothing", {"x": 1, "y": 1}, "x"),
        ("number", {"number": 1, "Number": 1}, "Number"),
        ("point", {"point": {"x": 1, "z": 3, "y": 2}}, "point.z"),
        ("blocks", {"blocks": [{"phys-index": 1, "online": True, "a": 1}]}, "blocks[0].a"),
        ("mixed", {"path": "/", "buf_b64": "", "caller": 1}, "caller"),
    ],
)
def test_what_is_unexpected(name: str, given: dict[str, Any], unexpected: str) -> None:
    assert refusal(name, **given) == f"Parameter '{unexpected}' is unexpected"


def test_a_wrong_type_is_reported_before_what_is_missing_later_and_what_is_unexpected() -> None:
    assert refusal("mixed", path=1, zzz=1) == WRONG_TYPE.format("path", "string")
    assert refusal("mixed", zzz=1, path="/") == "Parameter 'buf-b64' is missing"
    assert refusal("mixed", buf_b64=1) == "Parameter 'path' is missing"


def test_optional_arguments() -> None:
    assert bind("mixed", path="/", buf_b64="") == {"path": "/", "buf_b64": ""}
    assert bind("mixed", path="/", buf_b64="", count=3, more="x") == {
        "path": "/",
        "buf_b64": "",
        "count": 3,
        "more": "x",
    }
    assert bind("mode") == {}


def test_null_is_never_absent() -> None:
    found = refusal("mixed", path="/", buf_b64="", count=None)
    assert found == WRONG_TYPE.format("count", "integer")


@pytest.mark.parametrize(
    ("name", "arguments", "returns"),
    [
        ("nothing", {}, None),
        ("number", {"number": "int"}, "int"),
        ("text", {"text": "str"}, "str"),
        ("flag", {"flag": "bool"}, "bool"),
        ("real", {"real": "number"}, "number"),
        ("unsigned", {"unsigned": "uint64"}, "uint64"),
        ("any", {"any": "any"}, "any"),
        ("colour", {"colour": "Colour"}, "Colour"),
        ("where", {"where": "Where"}, None),
        ("mode", {"*mode": "Mode"}, None),
        ("texts", {"texts": ["str"]}, ["str"]),
        ("point", {"point": "Point"}, "Point"),
        ("partial", {"partial": "Partial"}, "str"),
        ("mixed", {"path": "str", "buf-b64": "str", "*count": "int", "*more": "str"}, ["Block"]),
    ],
)
def test_descriptions(name: str, arguments: dict[str, Any], returns: Any) -> None:
    assert signature(name).describe() == {"arguments": arguments, "returns": returns}


def test_members_of_structs() -> None:
    assert schema.members(Point) == {"x": (int, True), "y": (int, True)}
    assert schema.members(Block) == {
        "phys-index": (UInt64, True),
        "online": (bool, True),
        "label": (str, False),
    }
    assert schema.members(Partial) == {"count": (int, False)}
    assert schema.members(Shape) == {"points": (list[Point], True), "weight": (float, False)}


@pytest.mark.parametrize(
    ("annotation", "carries"),
    [(float, True), (int, False), (list[float], True), (Shape, True), (list[Point], False)],
)
def test_which_results_may_hold_floats(annotation: Any, carries: bool) -> None:
    assert schema.carries_number(annotation) is carries


class Mistaken:
    def no_annotation(self, x) -> None: ...  # type: ignore[no-untyped-def]

    def no_such_type(self, x: bytes) -> None: ...

    def no_default(self, x: Optional[int]) -> None: ...


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_annotation", "argument 'x' has no type annotation"),
        ("no_such_type", "<class 'bytes'> has no QAPI type"),
        ("no_default", "<class 'NoneType'> has no QAPI type"),
    ],
)
def test_a_mistake_of_the_handler_names_itself(name: str, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        schema.signature(vars(Mistaken)[name], frozenset())
