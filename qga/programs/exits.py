"""Waiting for a child to exit, together with other descriptors.

What must stay true: the child is not reaped here, so its process ID is not reused until its parent
code calls waitpid(2).
"""

from __future__ import annotations

import os
from _thread import start_new_thread
from errno import EAGAIN
from signal import SIGKILL


def open_exit(pid: int) -> int:
    """A descriptor that becomes readable when the child has exited; the caller closes it.

    Raises OSError if no descriptor is left. The child is then killed, because nothing could wait
    for it.
    """
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        # Linux before 5.3, a Python built on such a system, or a seccomp filter.
        pass
    try:
        return _end_of_pipe(pid)
    except OSError:
        os.kill(pid, SIGKILL)
        os.waitpid(pid, 0)
        raise


def _end_of_pipe(pid: int) -> int:
    """The read end of a pipe whose other end is closed by a thread that waits for the child."""
    ours, theirs = os.pipe()

    def wait() -> None:
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:  # already reaped
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
