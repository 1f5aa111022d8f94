"""Replies become values of the types that the library has, or a ProtocolError."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, Optional

import pytest

from qga.client import ProtocolError, metrics, readiness, restore, results, storage
from qga.client.conversion import MOST_ENTRIES, converted, member, plain


class Part(NamedTuple):
    some_name: int


class Whole(NamedTuple):
    text: str
    parts: tuple[Part, ...] = ()
    part: Optional[Part] = None
    ratio: float = 0.0
    data: Annotated[bytes, "buf-b64"] = b""


FULL = {
    "text": "t",
    "parts": [{"some-name": 1}, {"some-name": 2**64 - 1}],
    "part": {"some-name": -(2**63)},
    "ratio": 2,
    "buf-b64": "/w==",
}


def test_replies_and_values_convert_both_ways() -> None:
    value = converted(Whole, {**FULL, "of a newer agent": 1})
    assert value == Whole("t", (Part(1), Part(2**64 - 1)), Part(-(2**63)), 2.0, b"\xff")
    assert type(value.ratio) is float
    assert plain(value) == FULL


def test_missing_or_null_members_get_the_default() -> None:
    assert converted(Whole, {"text": "t", "part": None}) == Whole("t")
    assert plain(Whole("t")) == {"text": "t", "parts": [], "ratio": 0.0, "buf-b64": ""}


@pytest.mark.parametrize(
    ("kind", "reply", "complaint"),
    [
        (Whole, [], "the reply is not an object"),
        (Whole, {}, "the reply lacks 'text'"),
        (Whole, {"text": None}, "the reply lacks 'text'"),
        (Whole, {"text": 1}, "'text' of the reply is not a string"),
        (Whole, {"text": "", "parts": {}}, "'parts' of the reply is not an array"),
        (Whole, {"text": "", "parts": [{}]}, "the reply lacks 'parts[0].some-name'"),
        (Whole, {"text": "", "part": 1}, "'part' of the reply is not an object"),
        (Whole, {"text": "", "ratio": True}, "'ratio' of the reply is not a number"),
        (Whole, {"text": "", "ratio": "1"}, "'ratio' of the reply is not a number"),
        (Whole, {"text": "", "buf-b64": "a"}, "'buf-b64' of the reply is not valid base64"),
        (Whole, {"text": "", "buf-b64": "\xe4"}, "'buf-b64' of the reply is not valid base64"),
        (bool, 1, "the reply is not true or false"),
        (list[Part], [{"some-name": True}], "'[0].some-name' of the reply is not an integer"),
        (int, 1.0, "the reply is not an integer"),
        (int, 2**64, "the reply is a number of more than 64 bits"),
        (float, float("inf"), "the reply is not a finite number"),
        (float, 10**400, "the reply is a number of more than 64 bits"),
    ],
)
def test_an_error_names_the_member(kind: Any, reply: object, complaint: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        converted(kind, reply)
    assert str(caught.value) == complaint


def test_one_member() -> None:
    assert member(list[str], "keys", {"keys": ["a"], "other": 1}) == ["a"]
    with pytest.raises(ProtocolError, match="the reply lacks 'keys'"):
        member(list[str], "keys", {})
    with pytest.raises(ProtocolError, match=r"'keys\[1\]' of the reply is not a string"):
        member(list[str], "keys", {"keys": ["", 1]})


KINDS = [
    kind
    for module in (results, storage, metrics, readiness, restore)
    for kind in vars(module).values()
    if hasattr(kind, "_fields") and kind.__module__ == module.__name__
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_types_of_results_can_be_read(kind: Any) -> None:
    with pytest.raises(ProtocolError, match="is not an object"):
        converted(kind, 0)
    if set(kind._fields) <= set(kind._field_defaults):
        assert converted(kind, {}) == kind()
    else:
        with pytest.raises(ProtocolError, match="lacks"):
            converted(kind, {})


def test_a_list_of_too_many_entries_is_named() -> None:
    assert len(converted(list[int], [0] * MOST_ENTRIES)) == MOST_ENTRIES
    with pytest.raises(ProtocolError, match="'parts' of the reply has more than 16384 entries"):
        converted(Whole, {"text": "", "parts": [{"some-name": 1}] * (MOST_ENTRIES + 1)})
