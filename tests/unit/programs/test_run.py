"""Programs that the agent itself runs: all of their input, all of their output, and no longer
than they may."""

from __future__ import annotations

import os
import time

import pytest

from qga.programs.run import run

MUCH = b"0123456789abcdef" * (1 << 16)


def test_much_goes_in_and_comes_out_at_once() -> None:
    ended = run(["cat"], 60, MUCH, len(MUCH))
    assert (ended.status, ended.output.encode()) == (0, MUCH)


def test_no_more_is_kept_than_was_asked_for() -> None:
    assert run(["cat"], 60, MUCH, 10).output == "0123456789"


def test_a_program_that_reads_only_the_beginning() -> None:
    ended = run(["sh", "-c", "head -c 3; exit 5"], 60, MUCH)
    assert (ended.status, ended.output) == (5, "012")


def test_a_program_that_closes_its_input_and_continues() -> None:
    ended = run(["sh", "-c", "exec <&-; sleep 0.3; echo done"], 60, MUCH)
    assert (ended.status, ended.output) == (0, "done\n")


def test_without_input_there_is_nothing_to_wait_for() -> None:
    assert run(["sh", "-c", "wc -c; echo more >&2"], 60).output == "0\nmore\n"


@pytest.mark.parametrize("stdin", [b"", MUCH], ids=["no input", "much input"])
def test_one_that_takes_too_long(stdin: bytes) -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        run(["sleep", "60"], 0.2, stdin)
    assert time.monotonic() - started < 30


def test_what_it_has_left_behind_is_not_waited_for() -> None:
    started = time.monotonic()
    assert run(["sh", "-c", "sleep 20 & echo out"], 50, MUCH).output == "out\n"
    assert time.monotonic() - started < 15


def test_no_descriptor_is_left() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for argv in (["true"], ["cat"], ["sleep", "60"], ["/nowhere"]):
        try:
            run(argv, 0.2, b"x")
        except OSError:
            pass
    assert len(os.listdir("/proc/self/fd")) == before
