"""What a Decoder makes of bytes, in a form that can be compared."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from qga.errors import QgaError
from qga.wire.decoder import Decoder
from qga.wire.grammar import Builder
from qga.wire.lexer import Lexer
from qga.wire.protocol import Fault

if TYPE_CHECKING:
    from qga.wire.protocol import Event

PING = b'{"execute": "guest-ping"}'


def shown(events: Iterable[Event]) -> list[str]:
    """One line an event: the text of a fault, or the request, and the id where there is one."""
    return [f"{_shown_body(event)} id={event.id!r}" for event in events]


def _shown_body(event: Event) -> str:
    if isinstance(event, Fault):
        return f"{event.error.error_class}: {event.error.desc}"
    return f"{event.execute} {event.arguments!r}"


def descs(data: bytes) -> list[str]:
    return descs_of(Decoder(), data)


def descs_of(decoder: Decoder, data: bytes) -> list[str]:
    """The text of each fault in `data`, without its position, or the command's name."""
    return [
        re.sub(r"^\d+:\d+: ", "", event.error.desc) if isinstance(event, Fault) else event.execute
        for event in decoder.receive(data)
    ]


def parse(raw: bytes) -> Any:
    """The value of a text, token by token. Raises QgaError."""
    builder = Builder()
    for kind, start, end in Lexer().scan(raw + b" "):  # a space to end a last number
        if builder.take(kind, raw[start:end]):
            return builder.value
    raise QgaError("unfinished")


def receive_all(decoder: Decoder, pieces: Iterable[bytes]) -> list[str]:
    return [line for piece in pieces for line in shown(decoder.receive(piece))]


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """`data` cut at these places, which may be in any order and beyond its end."""
    ends = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in zip(ends, ends[1:])]
