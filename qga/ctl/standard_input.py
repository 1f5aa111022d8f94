"""What users pass to qgactl on standard input or in files: a line, or a text of limited size."""

from __future__ import annotations

import os
import select
import sys
from typing import BinaryIO

from qga.wording import counted

# Bytes. A password's hash has some hundred; cryptsetup(8) reads a passphrase of 512 characters.
LONGEST_LINE = 64 * 1024

# Bytes of a file with public keys: thousands.
LARGEST_TEXT = 1024 * 1024


def first_line(what: str) -> bytes:
    """The first line of standard input. Raises ValueError, which names `what` was expected."""
    line = sys.stdin.buffer.readline(LONGEST_LINE + 1)
    if len(line) > LONGEST_LINE:
        raise ValueError(f"the {what} has more than {counted(LONGEST_LINE, 'byte')}")
    if not line.rstrip(b"\r\n"):
        raise ValueError(f"no {what} on standard input")
    return line


def read(size: int) -> bytes:
    """Wait for some bytes of standard input, also if another program made it non-blocking."""
    descriptor = sys.stdin.fileno()
    while True:
        try:
            return os.read(descriptor, size)
        except BlockingIOError:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll()


def text_of(file: BinaryIO) -> str:
    """Read a file to its end. Raises ValueError if it is too large, or not UTF-8."""
    content = file.read(LARGEST_TEXT + 1)
    if len(content) > LARGEST_TEXT:
        raise ValueError(f"more than {counted(LARGEST_TEXT, 'byte')}")
    return utf8(content)


def utf8(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None
