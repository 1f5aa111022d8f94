"""Counting the bytes of files as they pass, and comparing them by checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

from qga.client.copies.trees import (
    PIECE,
)
from qga.client.errors import (
    CopyError,
)
from qga.wording import counted


class Counter:
    """Counts bytes as they pass, up to a limit."""

    def __init__(self, total: int, limit: int, moved: Callable[[int], None]) -> None:
        self.total = total
        self.limit = limit
        self.moved = moved

    def count(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.total += len(chunk)
            if self.total > self.limit:
                limit = counted(self.limit, "byte")
                raise CopyError(f"has grown to more than {limit}, or does not end")
            self.moved(len(chunk))
            yield chunk


class Digests:
    """The checksum of each piece of the passing bytes."""

    def __init__(self) -> None:
        self._done: list[str] = []
        self._piece = hashlib.sha256()
        self._size = 0

    def count(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                part = rest[: PIECE - self._size]
                self._piece.update(part)
                self._size += len(part)
                rest = rest[len(part) :]
                if self._size == PIECE:
                    self._next()
            yield chunk

    def finished(self) -> list[str]:
        if self._size:
            self._next()
        return self._done

    def _next(self) -> None:
        self._done.append(self._piece.hexdigest())
        self._piece, self._size = hashlib.sha256(), 0


def same(theirs: Sequence[str], ours: Sequence[str], count: int) -> bool:
    """Whether both are the same `count` checksums, all of them known."""
    return len(theirs) == count and theirs == ours and all(theirs)
