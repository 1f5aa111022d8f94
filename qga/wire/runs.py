"""Reads many items in a row at the speed of Python's JSON reader.

Each token of a message costs about a microsecond, which is a second for a million. So in a large
message plain items are read by the hundreds: short strings, numbers, words, and lists and objects
of these.
"""

from __future__ import annotations

from qga.light import expression
from qga.records import NamedTuple
from qga.wire.jsontext import reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MOST = rb"{1,500}"  # items, which take less than a millisecond

_STRING = rb'"[ !#-\[\]-\x7f]*"'
_SCALAR = (
    rb"(?:"
    + _STRING
    + rb"|-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,17})?|true|false|null)"  # finite, and an int64
)


def _or_containers_of(item: bytes) -> bytes:
    """Such an item, or a list or an object of them."""
    member = _STRING + rb": ?" + item
    lists = rb"\[(?:" + item + rb"(?:, ?" + item + rb")*)?\]"
    objects = rb"\{(?:" + member + rb"(?:, ?" + member + rb")*)?\}"
    return rb"(?:" + item + rb"|" + lists + rb"|" + objects + rb")"


DEPTH = 2
"""Levels that the items of a run may have."""

_VALUE = _or_containers_of(_or_containers_of(_SCALAR))
_TOKEN = expression(rb'"[^"]*"|[^ "{}\[\],:]+|[{}\[\],:]')
_ITEMS = expression(rb"(?: ?" + _VALUE + rb",)" + _MOST)
_MEMBERS = expression(rb"(?: ?" + _STRING + rb": ?" + _VALUE + rb",)" + _MOST)

_read = reader()


class Run(NamedTuple):
    """Items of a list, or members of an object, each with the comma after it.

    end: where in the data they end.
    tokens, size: how many tokens they are, and how many bytes those have.
    """

    content: list[Any] | dict[str, Any]
    end: int
    tokens: int
    size: int

    def extend(self, container: list[Any] | dict[str, Any]) -> None:
        if type(container) is list:
            container += self.content
        else:
            container.update(self.content)  # type: ignore[union-attr]


def run_at(data: bytes, position: int, container: list[Any] | dict[str, Any]) -> Run | None:
    """The run that begins at `position` and can extend `container`; None if there is none."""
    is_list = type(container) is list
    match = (_ITEMS if is_list else _MEMBERS).match(data, position)
    if match is None:
        return None
    tokens = _TOKEN.findall(match.group())
    text = match.group()[:-1].decode("ascii")
    try:
        content, _ = _read(f"[{text}]" if is_list else f"{{{text}}}", 0)
    except ValueError:  # a duplicate key
        return None
    if type(container) is dict and not content.keys().isdisjoint(container.keys()):
        return None
    return Run(content, match.end(), len(tokens), sum(map(len, tokens)))
