"""The targets by name, and what the fuzzer should know of each."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Callable, NamedTuple, cast

CORPUS = Path(__file__).parent / "corpus"

TestOne = Callable[[bytes], None]
"""Raises when something is wrong with what the product makes of these bytes."""


class Target(NamedTuple):
    """share: its part of all inputs; max_length: bytes of one; words: what may be of use in it."""

    name: str
    share: float
    max_length: int
    words: Sequence[bytes] = ()

    def load(self) -> TestOne:
        """The function to be called for each input."""
        return cast(TestOne, import_module(f"tests.fuzz.{self.name}").test_one)

    @property
    def corpus(self) -> Path:
        return CORPUS / self.name


_JSON_WORDS = (
    *(b"true", b"false", b"null", b'"execute":', b'"arguments":{', b'"id":', b'"guest-ping"'),
    *(b"\\u", b"\\ud83d\\ude00", b"\\ud83d", b"\\ufffe", b"\\u0000", b"1e400", b"0e1", b"-0"),
    *(b"9223372036854775808", b"18446744073709551616", b"\xc0\x80", b"\xed\xa0\x80", b"\xff{"),
    *(b"\xef\xbf\xbe", b"\xf0\x9f\xbf\xbe", b"{}", b"[]", b"''", b'{"execute":"x"}', b" " * 9),
)
_CONFIG_WORDS = (
    *(b"[general]\n", b"[channel x]\n", b"method=", b"unix-listen", b"vsock-listen", b"path=/"),
    *(b"isa-serial", b"virtio-serial", b"allow-rpcs=a,b", b"block-rpcs=", b"allow-cids=2,3"),
    *(b"max-clients=", b"baud=", b"daemon=true", b"pidfile=", b"statedir=", b"logfile=", b"\\s"),
    *(b"verbose=1", b"retry-path=0", b"fsfreeze-hook=", b"blacklist=", b"plugin-dir=", b"\r\n"),
)

TARGETS = {
    target.name: target
    for target in (
        Target("decoder", 0.2, 160, _JSON_WORDS),
        Target("commands", 0.2, 200),
        Target("config", 0.3, 256, _CONFIG_WORDS),
        Target("base64text", 0.15, 128),
        Target("system", 0.15, 800),
    )
}
