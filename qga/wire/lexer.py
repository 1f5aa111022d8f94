"""QEMU's JSON tokens, found in bytes that arrive in pieces.

A table of states: in each, a regular expression takes the run of bytes that do not change the
state, and the next byte decides. Every byte is read once, however the input is cut, and only a
state and a length are remembered between two pieces.

The language is JSON's with `'single quoted'` strings. A byte that cannot continue a token
makes a stray token, of which it is the last byte; input is then skipped up to a control
character, a structural one, or FE or FF, which is read as the beginning of a token again.
"""

from __future__ import annotations

from qga.wire.incoming import Incoming

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# Kinds of tokens; a structural one is its own byte.
STRING, INTEGER, FLOAT, KEYWORD, STRAY, OVERSIZE = b"sifk!>"
OPEN_BRACE, CLOSE_BRACE, OPEN_BRACKET, CLOSE_BRACKET, COMMA, COLON = b"{}[],:"

MAX_TOKEN = 64 * 1024 * 1024
"""Bytes of the longest token. A longer one is OVERSIZE and dropped (observed in qemu-ga)."""

# States. What a byte leads to is a state, or one of the moves below it.
(
    _BETWEEN,
    _SKIP,
    _DOUBLE,
    _DOUBLE_ESCAPE,
    _SINGLE,
    _SINGLE_ESCAPE,
    _MINUS,
    _ZERO,
    _DIGITS,
    _POINT,
    _FRACTION,
    _EXPONENT,
    _EXPONENT_SIGN,
    _EXPONENT_DIGITS,
    _WORD,
) = range(15)
_ENDS_BEFORE, _ENDS_WITH, _STRUCTURAL, _GOES_ASTRAY = range(-4, 0)

_NOTHING = rb""
_DIGIT_RUN = rb"[0-9]*"


def _each(characters: bytes, move: int) -> dict[int, int]:
    return dict.fromkeys(characters, move)


def _string_run(plain: bytes) -> bytes:
    """Text with a limited number of escapes, because each costs the matcher memory."""
    return plain + rb"(?:\\[^\x00-\x1f\xfe\xff]" + plain + rb"){0,1000}"


_CONTROLS = bytes([*range(0x20), 0xFE, 0xFF])
_ESCAPES_ASTRAY = _each(_CONTROLS, _GOES_ASTRAY)
_DIGIT = b"0123456789"

_TABLE: dict[int, tuple[bytes, dict[int, int], int]] = {
    # state: (run of bytes that stay, where certain bytes lead, where all others lead)
    _BETWEEN: (
        rb"[ \t\r\n]*",
        {
            **_each(b"{}[],:", _STRUCTURAL),
            **_each(b"abcdefghijklmnopqrstuvwxyz", _WORD),
            **_each(b"123456789", _DIGITS),
            ord('"'): _DOUBLE,
            ord("'"): _SINGLE,
            ord("-"): _MINUS,
            ord("0"): _ZERO,
        },
        _GOES_ASTRAY,
    ),
    _SKIP: (rb"[^\x00-\x08\x0a-\x1f{}\[\],:\xfe\xff]*", {}, _ENDS_BEFORE),
    _DOUBLE: (
        _string_run(rb"[ !#-\[\]-\xfd]*"),
        {ord('"'): _ENDS_WITH, ord("\\"): _DOUBLE_ESCAPE},
        _GOES_ASTRAY,
    ),
    _DOUBLE_ESCAPE: (_NOTHING, _ESCAPES_ASTRAY, _DOUBLE),
    _SINGLE: (
        _string_run(rb"[ -&(-\[\]-\xfd]*"),
        {ord("'"): _ENDS_WITH, ord("\\"): _SINGLE_ESCAPE},
        _GOES_ASTRAY,
    ),
    _SINGLE_ESCAPE: (_NOTHING, _ESCAPES_ASTRAY, _SINGLE),
    _MINUS: (_NOTHING, {**_each(b"123456789", _DIGITS), ord("0"): _ZERO}, _GOES_ASTRAY),
    _ZERO: (_NOTHING, {**_each(_DIGIT, _GOES_ASTRAY), ord("."): _POINT}, _ENDS_BEFORE),
    _DIGITS: (_DIGIT_RUN, {ord("."): _POINT, **_each(b"eE", _EXPONENT)}, _ENDS_BEFORE),
    _POINT: (_NOTHING, _each(_DIGIT, _FRACTION), _GOES_ASTRAY),
    _FRACTION: (_DIGIT_RUN, _each(b"eE", _EXPONENT), _ENDS_BEFORE),
    _EXPONENT: (
        _NOTHING,
        {**_each(_DIGIT, _EXPONENT_DIGITS), **_each(b"+-", _EXPONENT_SIGN)},
        _GOES_ASTRAY,
    ),
    _EXPONENT_SIGN: (_NOTHING, _each(_DIGIT, _EXPONENT_DIGITS), _GOES_ASTRAY),
    _EXPONENT_DIGITS: (_DIGIT_RUN, {}, _ENDS_BEFORE),
    _WORD: (rb"[a-z]*", {}, _ENDS_BEFORE),
}

_KINDS = {
    _DOUBLE: STRING,
    _SINGLE: STRING,
    _ZERO: INTEGER,
    _DIGITS: INTEGER,
    _FRACTION: FLOAT,
    _EXPONENT_DIGITS: FLOAT,
    _WORD: KEYWORD,
}

_ENDED_BY_NEXT = (INTEGER, FLOAT, KEYWORD)

_LONG = 2048  # bytes of text

_RULES: list[tuple[Any, dict[int, int], int]] = []


def _make_rules() -> list[tuple[Any, dict[int, int], int]]:
    # Not at the start, which few requests need them for: they cost a megabyte.
    import re

    for run, moves, otherwise in _TABLE.values():
        _RULES.append((re.compile(run).match, moves, otherwise))
    return _RULES


class Lexer:
    """max_token: bytes of a token, beyond which it is OVERSIZE."""

    def __init__(self, max_token: int | None = None) -> None:
        self._max_token = MAX_TOKEN if max_token is None else max_token
        self.incoming = Incoming()
        """The string in which the last piece ended, or that was yielded last."""
        self.unfinished = 0
        """Bytes of the token in which the last piece ended."""
        self.column_shift = 0
        """Bytes by which QEMU's lexer is wrong about the column of the last token: it counts the
        byte that ended the previous token twice, and does not advance after an oversize one."""
        self._next_shift = 0  # of a token that begins with the next byte
        self.reset()

    def reset(self) -> None:
        """Forget the token in which the last piece ended."""
        self._state = _BETWEEN
        self._next_shift = 0
        self.unfinished = 0
        self.incoming.clear()

    @property
    def at_rest(self) -> bool:
        """Whether the next byte begins a token or is white space."""
        return self._state == _BETWEEN

    @property
    def at_start(self) -> bool:
        """Whether the input so far does not affect the next token or its column."""
        return self._state == _BETWEEN and not self._next_shift

    @property
    def breaks_at_object(self) -> bool:
        """Whether no `{"` may come next: within a number or word, or a string that `"` ends."""
        return self._state not in (_BETWEEN, _SKIP, _SINGLE, _SINGLE_ESCAPE)

    def scan(self, data: bytes, position: int = 0) -> Iterator[tuple[int, int, int]]:
        """Yield (kind, start, end) of each token that ends in `data`; to be run to its end, or left
        with `stop_after`.

        position: where in `data` to begin. start is less than that when earlier pieces hold the
            token's beginning.
        """
        state, start = self._state, position - self.unfinished
        limit = min(len(data), start + self._max_token + 1) if self.unfinished else len(data)
        ended, shift = position, self._next_shift  # a token that begins there has this shift
        rules = _RULES or _make_rules()
        while True:
            if state == _DOUBLE and (
                limit - position >= _LONG or self._continues(position - start - 1)
            ):
                position = self._pass_text(data, position, limit, position - start - 1)
            run, moves, otherwise = rules[state]
            position = run(data, position, limit).end()
            if position == limit:
                if position - start <= self._max_token or state <= _SKIP:
                    break
                ended = position
                self._next_shift = shift = start - position
                yield OVERSIZE, start, position
                state, limit = _BETWEEN, len(data)
                continue
            move = moves.get(data[position], otherwise)
            if move >= 0:
                if state == _BETWEEN:
                    start = position
                    self.column_shift = shift if position == ended else 0
                    limit = min(len(data), start + self._max_token + 1)
                state = move
                position += 1
                continue
            if move == _STRUCTURAL:
                self.column_shift = shift if position == ended else 0
                yield data[position], position, position + 1
                position += 1
                continue
            if move == _GOES_ASTRAY:
                if state == _BETWEEN:
                    start = position
                    self.column_shift = shift if position == ended else 0
                yield STRAY, start, position + 1
                position += 1
            elif move == _ENDS_WITH:
                position += 1
                yield _KINDS[state], start, position
            else:
                ended, shift = position, 1
                if state != _SKIP:
                    yield _KINDS[state], start, position
            state = _SKIP if move == _GOES_ASTRAY else _BETWEEN
            limit = len(data)
        self._state = state
        self._next_shift = shift if position == ended else 0
        self.unfinished = 0 if state <= _SKIP else position - start

    def stop_after(self, kind: int) -> None:
        """Stop scanning after the token, of this kind, that was yielded last."""
        self._state = _SKIP if kind == STRAY else _BETWEEN
        if kind != OVERSIZE:
            self._next_shift = 1 if kind in _ENDED_BY_NEXT else 0
        self.unfinished = 0

    def _continues(self, at: int) -> bool:
        """Whether the first `at` bytes of the string were all decoded."""
        return 0 < at == self.incoming.size

    def _pass_text(self, data: bytes, start: int, limit: int, at: int) -> int:
        """A position up to which the string in double quotes has plain text.

        Skips the base64 text of a file several times faster than a regular expression.

        at: how many bytes of the string came before.
        """
        end = limit
        for mark in b'"\\':
            found = data.find(mark, start, end)
            if found >= 0:
                end = found
        if end - start < (1 if self._continues(at) else _LONG):
            return start
        text = data[start:end]
        return end if self.incoming.take(text, at) or not has_control(text) else start


def has_control(text: bytes) -> bool:
    """Whether there is a byte that no string may contain: many searches at memory speed."""
    return any(map(text.__contains__, _CONTROLS))
