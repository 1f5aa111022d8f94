"""Replies on their way out: through a pipe that takes a little at a time."""

from __future__ import annotations

import base64
import fcntl
import os
import tracemalloc
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from qga import Payload
from qga.serving.output import WRITE_SIZE, Output

if TYPE_CHECKING:
    from qga.wire.payload import Part

F_SETPIPE_SZ = 1031  # linux/fcntl.h; fcntl has it since Python 3.10


class Pipe:
    """A pipe whose writing end never blocks."""

    def __init__(self, size: int) -> None:
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        os.set_blocking(self.write_end, False)
        fcntl.fcntl(self.write_end, F_SETPIPE_SZ, size)

    def collected(self) -> bytes:
        try:
            return os.read(self.read_end, 8192)
        except BlockingIOError:
            return b""

    def drain(self, output: Output) -> bytes:
        """Everything that `output` writes, collected whenever the pipe is full."""
        received = bytearray()
        while output.size:
            try:
                output.write_to(self.write_end)
            except BlockingIOError:
                pass
            received += self.collected()
        return bytes(received)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe(4096)
    yield pipe
    os.close(pipe.read_end)
    os.close(pipe.write_end)


def test_replies_leave_together(monkeypatch: pytest.MonkeyPatch, pipe: Pipe) -> None:
    writes: list[bytes] = []

    def write(_fd: int, data: bytes) -> int:
        writes.append(data)
        return len(data)

    monkeypatch.setattr(os, "write", write)
    output = Output()
    output.append([b"a"])
    output.append([b"b", b"c"])
    output.write_to(pipe.write_end)
    assert writes == [b"abc"]


def test_parts_in_their_order(pipe: Pipe) -> None:
    output = Output()
    output.append([b"a", b"b"])
    output.append([b"c"])
    output.write_to(pipe.write_end)
    assert pipe.collected() == b"abc"
    assert output.size == 0


def test_nothing_writes_nothing(pipe: Pipe) -> None:
    Output().write_to(pipe.write_end)
    assert pipe.collected() == b""


SIZES = [0, 1, 2, 3, 1000, WRITE_SIZE // 4 * 3 - 1, WRITE_SIZE // 4 * 3, WRITE_SIZE // 4 * 3 + 1]


@pytest.mark.parametrize("size", [*SIZES, 2 * WRITE_SIZE])
def test_a_payload_leaves_as_base64(pipe: Pipe, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    output = Output()
    parts: list[Part] = [b'{"b": "', Payload(data[:size]), b'"}\n', b"next\n"]
    output.append(parts)
    expected = b'{"b": "' + base64.b64encode(data[:size]) + b'"}\nnext\n'
    assert output.size == len(expected)
    assert pipe.drain(output) == expected
    assert output.size == 0


def test_payloads_one_after_another(pipe: Pipe) -> None:
    output = Output()
    output.append([Payload(b"one"), Payload(b""), b"|", Payload(b"three")])
    assert pipe.drain(output) == base64.b64encode(b"one") + b"|" + base64.b64encode(b"three")


def test_a_full_pipe_keeps_the_rest(pipe: Pipe) -> None:
    output = Output()
    output.append([b"x" * 5000])
    with pytest.raises(BlockingIOError):
        output.write_to(pipe.write_end)
    assert output.size == 5000 - 4096
    output.append([b"y"])
    assert len(pipe.collected()) == 4096
    output.write_to(pipe.write_end)
    assert pipe.collected() == b"x" * (5000 - 4096) + b"y"


def test_clear_forgets_what_was_begun(pipe: Pipe) -> None:
    output = Output()
    output.append([Payload(b"x" * WRITE_SIZE)])
    with pytest.raises(BlockingIOError):
        output.write_to(pipe.write_end)
    pipe.collected()
    output.clear()
    assert output.size == 0
    output.append([b"new"])
    assert pipe.drain(output) == b"new"


def test_a_closed_pipe_is_an_error(pipe: Pipe) -> None:
    output = Output()
    output.append([b"x"])
    read_end = pipe.read_end
    pipe.read_end = os.dup(pipe.write_end)
    os.close(read_end)
    with pytest.raises(BrokenPipeError):
        output.write_to(pipe.write_end)


def test_a_big_payload_is_never_encoded_as_a_whole(pipe: Pipe) -> None:
    output = Output()
    output.append([Payload(bytes(32 * WRITE_SIZE))])
    tracemalloc.start()
    try:
        while output.size:
            try:
                output.write_to(pipe.write_end)
            except BlockingIOError:
                pipe.collected()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * WRITE_SIZE
