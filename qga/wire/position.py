"""Where in a channel's input a fault is: `LINE:COLUMN: `, as in QEMU's texts since 11.1."""

from __future__ import annotations


class Position:
    """How far the input of a channel has been read, over all its connections.

    Neither a new connection nor a 0xFF starts it anew.
    """

    __slots__ = ("_column", "_line")

    def __init__(self) -> None:
        self._line = 1
        self._column = 1  # of the next byte

    def pass_over(self, data: bytes, start: int, end: int) -> None:
        first = data.find(b"\n", start, end)
        if first < 0:
            self._column += end - start
            return
        if first == end - 1:  # as nearly always
            self.pass_line()
            return
        last = data.rfind(b"\n", first, end)
        # find() is many times faster than count().
        self._line += 1 if last == first else data.count(b"\n", first, end)
        self._column = end - last

    def pass_line(self) -> None:
        """Pass over bytes of which the last is a newline, and no other."""
        self._line += 1
        self._column = 1

    def before(self, length: int) -> str:
        """The position of a token that began `length` bytes ago."""
        # Another client of the channel may have sent a line since then.
        return f"{self._line}:{max(1, self._column - length)}: "
