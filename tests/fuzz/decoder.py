"""Any bytes as a connection's input, in any pieces.

- No exception, and the same events however the bytes are cut.
- Behind 0xFF a good request is answered, whatever came before.
- What Python's json reads, if it is strict, is read alike.
- Every event makes a reply of one line of ASCII that reads back to what went in.
"""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any
from zlib import crc32

from qga.wire.decoder import Decoder
from qga.wire.jsontext import MAX_DEPTH
from qga.wire.protocol import ABSENT, Fault, Request, encode_error, encode_return
from tests.fuzz.draw import has_noncharacter
from tests.unit.decoding import PING, cut, in_pieces, parse, receive_all, shown

if TYPE_CHECKING:
    from qga.wire.protocol import Event

PING_SHOWN = ["guest-ping {} id=" + repr(ABSENT)]


def test_one(data: bytes) -> None:
    events = Decoder().receive(data)
    whole = shown(events)
    chance = Random(crc32(data))  # what decides must be in the input
    pieces = cut(data, [chance.randrange(len(data) + 1) for _ in range(chance.randint(1, 5))])
    if chance.random() < 0.02:
        pieces = in_pieces(data, 1)
    decoder = Decoder()
    in_parts = receive_all(decoder, pieces)
    assert in_parts == whole, (pieces, in_parts, whole)
    decoder.receive(b"\xff")
    assert shown(decoder.receive(PING)) == PING_SHOWN
    if events:
        check_reply(chance.choice(events))
    check_reading(data)


def check_reply(event: Event) -> None:
    if isinstance(event, Fault):
        line = encode_error(event.error, event.id)
        body: Any = {"class": event.error.error_class, "desc": event.error.desc}
    else:
        parts = encode_return(event.arguments, event.id, with_numbers=True)
        line, body = b"".join(map(bytes, parts)), event.arguments  # type: ignore[arg-type]
    assert line.isascii(), line
    assert line.endswith(b"\n"), line
    assert line[:-1].decode().isprintable(), line
    try:
        reply = json.loads(line)
    except RecursionError:
        return
    assert reply.pop("id", ABSENT) == event.id, line
    assert list(reply.values()) == [body], (line, body)


def check_reading(data: bytes) -> None:
    """Read with Python's json, where it reads this, and compare."""
    try:
        text = data.decode()
        value = STRICT.decode(text)
    except (ValueError, RecursionError):
        return
    if text.count("[") + text.count("{") > MAX_DEPTH or has_noncharacter(
        json.dumps(value, ensure_ascii=False)
    ):
        return
    bare = data.strip(b" \t\r\n")
    assert repr(parse(bare)) == repr(value), value
    events = Decoder().receive(data + b"\n")
    assert [*map(meaning, events)] == [envelope(value)]


def envelope(value: Any) -> Request | None:
    """What a message with this value asks for; None where it is no request."""
    if type(value) is not dict or value.keys() - {"execute", "arguments", "id"}:
        return None
    name, arguments = value.get("execute"), value.get("arguments", {})
    if type(name) is not str or type(arguments) is not dict:
        return None
    return Request(name, arguments, value.get("id", ABSENT))


def meaning(event: Event) -> Request | None:
    return event if isinstance(event, Request) else None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key twice is an error to QEMU")
    return dict(pairs)


def _integer(digits: str) -> int | float:
    value = int(digits)
    return value if -(2**63) <= value < 2**64 else _float(digits)


def _float(digits: str) -> float:
    if float(digits) in (float("inf"), float("-inf")):
        raise ValueError("too big is an error to QEMU")
    if digits.lstrip("-")[:2] in ("0e", "0E"):
        raise ValueError("0e1 is two tokens to QEMU")
    return float(digits)


def _constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


STRICT = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)
