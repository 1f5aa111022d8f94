"""Waiting for a child to end, along with other descriptors.

What must stay true: the child is not reaped here, so its process id stays its own until whoever
has started it calls waitpid(2).
"""

from __future__ import annotations

import os
from _thread import start_new_thread
from errno import EAGAIN
from signal import SIGKILL


def open_exit(pid: int) -> int:
    """A descriptor that is readable once the child has ended; the caller closes it.

    If there is none to be had the child is killed, because nobody could wait for it: OSError.
    """
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        # Linux before 5.3, a Python that was built on one, or a filter of system calls.
        pass
    try:
        return _end_of_pipe(pid)
    except OSError:
        os.kill(pid, SIGKILL)
        os.waitpid(pid, 0)
        raise


def _end_of_pipe(pid: int) -> int:
    """The read end of a pipe. A thread waits for the child and then closes the other end."""
    ours, theirs = os.pipe()

    def wait() -> None:
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:  # reaped before we came to look
            pass
        finally:
            os.close(theirs)

    try:
        start_new_thread(wait, ())
    except RuntimeError:
        os.close(ours)
        os.close(theirs)
        raise OSError(EAGAIN, os.strerror(EAGAIN)) from None
    return ours
