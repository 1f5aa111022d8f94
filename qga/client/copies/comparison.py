"""Comparing the files of both sides by checksums."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice

from qga.client.copies.counting import same
from qga.client.copies.trees import Place, Side, pieces_of


class Comparison:
    """Compares files of the source with files of the target, if both have checksums."""

    def __init__(self, source: Side, target: Side) -> None:
        self._source = source
        self._target = target
        self._possible = source.can_compare and target.can_compare

    def agree(self, pairs: Sequence[tuple[Place, Place, int]]) -> list[bool]:
        """Whether each pair of files has the same first bytes; True if that cannot be known.

        pairs: a file of the source, a file of the target, and the number of bytes.
        """
        if not self._possible:
            return [True for _ in pairs]
        pieces = [pieces_of(origin, size) for origin, _, size in pairs]
        copies = [pieces_of(copy, size) for _, copy, size in pairs]
        theirs = iter(self._source.checksums(list(chain(*pieces))))
        ours = iter(self._target.checksums(list(chain(*copies))))
        return [
            same(list(islice(theirs, count)), list(islice(ours, count)), count)
            for count in map(len, pieces)
        ]

    def common(self, origin: Place, copy: Place, size: int) -> int:
        """How many of the first `size` bytes agree, in whole pieces; 0 if that cannot be known."""
        if not self._possible:
            return 0
        agreed = 0
        for theirs, ours in zip(pieces_of(origin, size), pieces_of(copy, size)):
            if not same(self._source.checksums([theirs]), self._target.checksums([ours]), 1):
                break
            agreed += ours.size
        return agreed
