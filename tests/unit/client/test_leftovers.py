"""Which of the things in QEMU belong to a process that has ended."""

from __future__ import annotations

import subprocess
import sys

from qga.client.snapshots.leftovers import Owner, is_leftover, start_of, this_process


def test_of_this_process() -> None:
    assert not is_leftover(this_process())


def test_of_another_process_that_runs() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        owner = this_process()._replace(pid=process.pid, start=start_of(process.pid))
        assert owner.start >= this_process().start > 0
        assert not is_leftover(owner)
    assert is_leftover(owner)


def test_of_one_whose_number_another_process_has() -> None:
    """In a container it is nearly always 1."""
    us = this_process()
    assert is_leftover(us._replace(start=us.start - 1))


def test_of_one_in_another_container() -> None:
    """Nothing is known of it."""
    ended = Owner(4194304, 1, this_process().namespace + 1)
    assert not is_leftover(ended)
    assert is_leftover(ended._replace(namespace=this_process().namespace))


def test_where_proc_shows_another_namespace() -> None:
    """It cannot say who it is, and takes nothing for that of a process that has ended."""
    code = (
        "from qga.client.snapshots.leftovers import Owner, is_leftover, this_process\n"
        "print(this_process().namespace, is_leftover(Owner(4194304, 0, 0)))"
    )
    argv = ["unshare", "--user", "--map-root-user", "--pid", "--fork", sys.executable, "-c", code]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "0 False\n"
