"""Random input: JSON-like soup, and good requests with a few bytes gone wrong.

The same seed gives the same inputs. Nothing here does harm when it happens to be well-formed: the
requests have no effect, and no mutation of a few bytes gives them one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Callable

REQUESTS = [
    b'{"execute":"guest-ping"}',
    b'{"execute":"guest-ping","id":"a\\u00e9\\n"}',
    b'{ "execute" : "guest-ping" , "id" : [ 1 , -2.5e3 , true , null , { "a" : "b" } ] }',
    b"{'execute':'guest-sync','arguments':{'id':123456}}",
    b'{"execute":"guest-sync-delimited","arguments":{"id":-7}}',
    b'{"execute":"guest-sync","arguments":{"id":9223372036854775807},"id":18446744073709551615}',
    b'{"arguments":{"x":1},"execute":"guest-ping"}',
    b'{"execute":"guest-no-such-thing","arguments":{"a":[{}],"b":{"c":"\xc3\xa9"}}}',
    b'{"execute":"guest-file-open","arguments":{"path":"/nonexistent/file","mode":"r"}}',
    b'{"execute":"guest-file-read","arguments":{"handle":17,"count":100}}',
    b'{"execute":"guest-file-seek","arguments":{"handle":17,"offset":0,"whence":"set"}}',
    b'{"execute":"guest-file-write","arguments":{"handle":17,"buf-b64":"aGVsbG8=","count":3}}',
    b'{"execute":"guest-exec","arguments":{"path":"/nonexistent/x","arg":["a"],"env":["B=1"]}}',
]

FRAGMENTS = [
    *(bytes([byte]) for byte in b"{}[]{}[]{}[],:,: \n\t\r\"'\\$%/#-+.01aeE_T"),
    *(bytes([byte]) for byte in (0, 1, 0x1F, 0x7F, 0x80, 0xA9, 0xC0, 0xC3, 0xE2, 0xF0, 0xFE, 0xFF)),
    *(b'"a"', b"'b'", b'"a":', b'"b":1', b'"\\u00e9"', b'"\\ud83d\\ude00"', b'"\\ud83d"', b'"\\x"'),
    *(b"true", b"false", b"null", b"nope", b"0", b"-1", b"1.5", b"1e5", b"01", b"1.", b"-"),
    *(b"\xc3\xa9", b"\xf0\x9f\x98\x80", b"\xed\xa0\x80", b"\xef\xbf\xbe", b"\xc0\x80"),
    *(b"\\u", b"\\", b'\\"'),
    *(b'{"a":1}', b"[1,2]", b"{}", b"[]", b"\xff\n", b'{"execute":"guest-ping"}'),
]

OUT_OF_RANGE = re.compile(rb"[eE]\+?\d{3}")
"""What may be a number too large for a double, on which the agents differ and mean to."""


def inputs(seed: int, count: int) -> Iterator[list[bytes]]:
    """`count` random inputs, each in one to four pieces."""
    chance = random.Random(seed)
    kinds: list[Callable[[random.Random], bytes]] = [soup, mutated, mutated, several]
    while count:
        data = chance.choice(kinds)(chance)
        if not OUT_OF_RANGE.search(data):
            count -= 1
            yield pieces(data, chance)


def soup(chance: random.Random) -> bytes:
    return b"".join(chance.choices(FRAGMENTS, k=chance.randint(1, 25)))


def mutated(chance: random.Random) -> bytes:
    """A good request with up to four bytes or fragments changed, put in, taken out or doubled."""
    data = bytearray(chance.choice(REQUESTS))
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(data) + 1)
        end = min(len(data), start + chance.choice((0, 0, 1, 1, 2, 5)))
        data[start:end] = chance.choice((b"", data[start:end] * 2, chance.choice(FRAGMENTS)))
    return bytes(data)


def several(chance: random.Random) -> bytes:
    """Pings, whole and mutated, with white space or rubbish between them."""
    parts = []
    for _ in range(chance.randint(2, 5)):
        parts += [chance.choice(REQUESTS[:3]), chance.choice((b"", b"\n", b" ", soup(chance)))]
    return b"".join(parts)


def pieces(data: bytes, chance: random.Random) -> list[bytes]:
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.choice((0, 0, 1, 3))))
    ends = [*cuts, len(data)]
    return [data[start:end] for start, end in zip([0, *cuts], ends) if start < end] or [data]
