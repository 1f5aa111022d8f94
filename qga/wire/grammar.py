"""Builds a value from tokens one by one, and reports the same faults at the same place as QEMU's
parser.

No recursion: a value may be 1024 levels deep.
"""

from __future__ import annotations

from qga.wire import jsontext
from qga.wire.incoming import Incoming
from qga.wire.jsontext import parse_error
from qga.wire.lexer import (
    CLOSE_BRACE,
    CLOSE_BRACKET,
    COLON,
    COMMA,
    OPEN_BRACE,
    OPEN_BRACKET,
    STRING,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What may come next. Up to _ITEM_OR_END it is a value.
_VALUE, _ITEM_OR_END, _KEY, _KEY_OR_END, _COLON, _SEPARATOR = range(6)


class Builder:
    """Builds one value. `value` is there once `take` has returned True."""

    __slots__ = ("_expects", "_keys", "_open", "value")

    def __init__(self) -> None:
        self._open: list[list[Any] | dict[str, Any]] = []
        self._keys: list[str] = []  # of the objects in _open that wait for their member's value
        self._expects = _VALUE
        self.value: Any = None

    def take(self, kind: int, token: bytes | bytearray, incoming: Incoming | None = None) -> bool:
        """Take a token, and return whether it completes the value.

        token: the bytes of one that is not structural.
        incoming: what was taken of a string, behind its quote; the token lacks that.

        Raises QgaError where the grammar has no place for it; nothing may be taken after that.
        """
        if self._expects <= _ITEM_OR_END:
            return self._take_value(kind, token, incoming)
        if self._expects == _SEPARATOR:
            return self._separate(kind)
        if self._expects == _COLON:
            if kind != COLON:
                raise parse_error("expecting ':'")
            self._expects = _VALUE
            return False
        return self._take_key(kind, token, incoming)

    def _take_value(self, kind: int, token: bytes | bytearray, incoming: Incoming | None) -> bool:
        if kind == OPEN_BRACE:
            return self._begin({}, _KEY_OR_END)
        if kind == OPEN_BRACKET:
            return self._begin([], _ITEM_OR_END)
        if kind == CLOSE_BRACKET and self._expects == _ITEM_OR_END:
            return self._add(self._open.pop())
        value = jsontext.scalar(kind, token)
        if incoming is not None:
            value = incoming.joined(value)
            if not self._is_argument:
                value = str(value)
        return self._add(value)

    @property
    def _is_argument(self) -> bool:
        """Whether the next value is an argument of a request."""
        return len(self._open) == len(self._keys) == 2 and self._keys[0] == "arguments"

    def _take_key(self, kind: int, token: bytes | bytearray, incoming: Incoming | None) -> bool:
        if kind == STRING:
            key = jsontext.string(token)
            self._keys.append(str(incoming.joined(key)) if incoming is not None else key)
            self._expects = _COLON
            return False
        if kind == CLOSE_BRACE and self._expects == _KEY_OR_END:
            return self._add(self._open.pop())
        raise parse_error("expecting key")

    def _begin(self, container: list[Any] | dict[str, Any], expects: int) -> bool:
        self._open.append(container)
        self._expects = expects
        return False

    def _add(self, value: Any) -> bool:
        if not self._open:
            self.value = value
            return True
        container = self._open[-1]
        if type(container) is dict:
            key = self._keys.pop()
            if key in container:
                raise parse_error("duplicate key")
            container[key] = value
        else:
            container.append(value)  # type: ignore[union-attr]
        self._expects = _SEPARATOR
        return False

    def _separate(self, kind: int) -> bool:
        is_list = type(self._open[-1]) is list
        if kind == COMMA:
            self._expects = _VALUE if is_list else _KEY
            return False
        if kind != (CLOSE_BRACKET if is_list else CLOSE_BRACE):
            raise parse_error(f"expected ',' or '{']' if is_list else '}'}'")
        return self._add(self._open.pop())

    @property
    def container(self) -> list[Any] | dict[str, Any] | None:
        """The list or object that needs an item or member after a comma; None elsewhere."""
        container = self._open[-1] if self._open else None
        if self._expects == (_KEY if type(container) is dict else _VALUE):
            return container
        return None
