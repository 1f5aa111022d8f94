"""Reads many items in a row at the speed of Python's JSON reader.

Each token of a message costs about a microsecond, which is a second for a million. So in a large
message plain items are read by the hundreds: strings, numbers, words, and lists and objects of
these.
"""

from __future__ import annotations

from itertools import accumulate, repeat

from qga.records import NamedTuple
from qga.stdlib import expression
from qga.wire.jsontext import reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, Union

    Container = Union[list[Any], dict[str, Any]]

_LEAST = 256  # bytes of the first look
_MOST = 16 * 1024  # bytes of one look

_TEXT = rb"[ !#-\[\]-\x7f]*"
_STRING = rb'"' + _TEXT + rb'(?:\\["\\/bfnrt]' + _TEXT + rb'){0,100}"'
_NUMBER = rb"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,17})?(?=[ ,\]}])"  # finite, an int64

_PLAIN = expression(
    rb"(?: ?(?:[{}\[\],:]|" + _STRING + rb"|" + _NUMBER + rb"|true|false|null)){1,4000}"
)
_TOKEN = expression(rb' ?(?:[{}\[\],:]|"[^"\\]*(?:\\.[^"\\]*)*"|[^ "{}\[\],:]+)')

_COMMAS = (b",", b" ,")
_STEPS = {b"[": 1, b" [": 1, b"{": 1, b" {": 1, b"]": -1, b" ]": -1, b"}": -1, b" }": -1}

_read = reader()


class Run(NamedTuple):
    """Items of a list, or members of an object, each with the comma after it.

    content: None if there are none.
    end: where in the data they end.
    tokens, size: how many tokens they are, and how many bytes those have.
    """

    content: Optional[Container]
    end: int
    tokens: int
    size: int

    def extend(self, container: Container) -> None:
        if type(container) is list:
            container += self.content  # type: ignore[arg-type]
        else:
            container.update(self.content)  # type: ignore[union-attr, arg-type]


class Runs:
    """Finds the runs of one message.

    Looks that find nothing cost little: each goes only as far as earlier ones have paid for, and
    what was found to be no run is not looked at again.
    """

    def __init__(self) -> None:
        self._window = _LEAST
        self._looked_at = 0  # tokens of the message

    def after(self, tokens: int, data: bytes, at: int, container: Container, room: int) -> Run:
        """The run that begins at `at`, behind this many tokens, and can extend `container`.

        room: levels that its items may have.
        """
        if tokens < self._looked_at:
            return Run(None, at, 0, 0)
        run, is_closed = _look(data, at, min(len(data), at + self._window), container, room)
        self._window = _LEAST if is_closed else min(2 * self._window, _MOST)
        self._looked_at = tokens + run.tokens
        return run


def _look(data: bytes, start: int, stop: int, container: Container, room: int) -> tuple[Run, bool]:
    """The run that begins at `start`, and whether its container is closed before `stop`.

    Without a run, `tokens` are those that were looked at.
    """
    match = _PLAIN.match(data, start, stop)
    text = match.group() if match else b""
    tokens = _TOKEN.findall(text)
    depths = [0] * len(tokens)
    if any(map(text.__contains__, b"[]{}")):
        depths = list(accumulate(map(_STEPS.get, tokens, repeat(0))))
    is_closed = -1 in depths
    end = seen = depths.index(-1) if is_closed else len(depths)
    while end and (depths[end - 1] or tokens[end - 1] not in _COMMAS):
        end -= 1
    content = None
    if end and max(depths[:end]) <= room:
        content = _content_of(b"".join(tokens[: end - 1]), container)
    if content is None:
        return Run(None, start, seen, 0), is_closed
    length = sum(map(len, tokens[:end]))
    spaces = sum(token.startswith(b" ") for token in tokens[:end]) if b" " in text else 0
    return Run(content, start + length, end, length - spaces), is_closed


def _content_of(text: bytes, container: Container) -> Container | None:
    """The items or members that `text` consists of; None if they cannot extend `container`."""
    begin, end = "[]" if type(container) is list else "{}"
    whole = f"{begin}{text.decode('ascii')}{end}"
    try:
        content, stop = _read(whole, 0)
    except (ValueError, RecursionError):  # such as a duplicate key
        return None
    if stop < len(whole):
        return None
    if type(container) is dict and not content.keys().isdisjoint(container.keys()):
        return None
    return content  # type: ignore[no-any-return]
