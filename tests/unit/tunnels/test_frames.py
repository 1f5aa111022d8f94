"""Frames: what is put together is taken apart again, wherever the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qga.tunnels.frames import (
    CREDIT,
    DATA,
    ECHO,
    END,
    HEAD,
    MAX_CREDIT,
    MAX_DATA,
    MAX_FRAME,
    MAX_REASON,
    RESET,
    Frame,
    FrameError,
    FrameReader,
    credit_frame,
    frame,
    reset_frame,
)

NUMBERS = st.integers(0, 2**32 - 1)
FRAMES = st.one_of(
    st.tuples(NUMBERS, st.just(DATA), st.binary(max_size=100)),
    st.tuples(NUMBERS, st.just(END), st.just(b"")),
    st.tuples(NUMBERS, st.just(RESET), st.binary(max_size=100)),
    st.tuples(NUMBERS, st.just(CREDIT), st.binary(min_size=4, max_size=4)),
    st.tuples(NUMBERS, st.just(ECHO), st.binary(max_size=16)),
)


def joined(frames: list[Frame]) -> list[Frame]:
    """With the parts of data put together, and without empty ones."""
    whole: list[Frame] = []
    for each in frames:
        if each.kind == DATA and whole and whole[-1][:2] == each[:2]:
            whole[-1] = Frame(each.connection, DATA, bytes(whole[-1].data) + each.data)
        elif each.data or each.kind != DATA:
            whole.append(each)
    return whole


@given(st.lists(FRAMES), st.integers(1, 64))
def test_frames_survive_a_round_trip(parts: list[tuple[int, int, bytes]], cut: int) -> None:
    stream = b"".join(frame(*each) for each in parts)
    reader = FrameReader()
    found = [
        each for at in range(0, len(stream), cut) for each in reader.feed(stream[at : at + cut])
    ]
    assert joined(found) == joined([Frame(*each) for each in parts])


@given(st.lists(st.binary(max_size=64)))
def test_any_bytes_are_frames_or_an_error(pieces: list[bytes]) -> None:
    reader, kept = FrameReader(), 0
    try:
        for piece in pieces:
            kept += sum(len(each.data) for each in reader.feed(piece))
    except FrameError:
        pass
    assert kept <= sum(map(len, pieces))


@pytest.mark.parametrize(
    ("kind", "length"),
    [(0, 0), (7, 0), (END, 1), (RESET, MAX_REASON + 1), (CREDIT, 5), (ECHO, 17)],
)
def test_an_invalid_frame_is_an_error(kind: int, length: int) -> None:
    with pytest.raises(FrameError, match="unknown kind or length"):
        list(FrameReader().feed(HEAD.pack(1, kind, length)))


def test_a_number_has_four_bytes_and_an_end() -> None:
    with pytest.raises(FrameError, match="without a number"):
        _ = Frame(1, CREDIT, b"abc").credit
    (found,) = FrameReader().feed(credit_frame(1, CREDIT, 2**32 - 1))
    assert found.credit == MAX_CREDIT


def test_a_reason_is_cut_and_need_not_be_text() -> None:
    (found,) = FrameReader().feed(reset_frame(3, "x" * 5000))
    assert found.reason == "x" * MAX_REASON
    assert Frame(3, RESET, b"\xff").reason == "\ufffd"


def test_the_largest_frame_is_one_write_to_a_port() -> None:
    assert len(frame(1, DATA, bytes(MAX_DATA))) == MAX_FRAME == 32 * 1024
