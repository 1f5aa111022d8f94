"""Threads for the handlers that may block, so that the loop never does.

A handler that never returns costs one thread for good. Threads are reused, started only when
all others are busy, and bounded in number: beyond that a command is refused, never queued
behind one that hangs. They are daemons: the agent ends without waiting for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

from qga.errors import QgaError
from qga.values import MAX_THREADS

if TYPE_CHECKING:
    from queue import SimpleQueue

    from qga.loop import Loop

RESERVE = 8
"""Threads beyond the others for what is urgent, such as a thaw, which nothing may stop."""

_M_ARENA_MAX = -8  # <malloc.h>

Job = Callable[[], Any]
Done = Callable[[Any, "BaseException | None"], None]
"""Takes a job's result, or the exception that it raised."""


class Worker:
    """max_threads: how many commands may be under way at once."""

    def __init__(self, loop: Loop, max_threads: int = MAX_THREADS) -> None:
        self._loop = loop
        self._max_threads = max_threads
        self._idle: list[SimpleQueue[tuple[Job, Done]]] = []
        self._threads = 0

    def submit(self, job: Job, done: Done, *, urgent: bool = False) -> None:
        """Run `job` on a thread, then `done` on the loop.

        Raises QgaError when all threads are busy with commands that do not return.
        """
        inbox = self._idle.pop() if self._idle else self._start_thread(urgent)
        inbox.put((job, done))

    def _start_thread(self, urgent: bool) -> SimpleQueue[tuple[Job, Done]]:
        from queue import SimpleQueue
        from threading import Thread

        if self._threads >= self._max_threads + RESERVE * urgent:
            raise QgaError(
                f"{self._threads} commands are still running; try again when one of them is done"
            )
        if not self._threads:
            _share_one_arena()
        inbox: SimpleQueue[tuple[Job, Done]] = SimpleQueue()
        Thread(target=self._work, args=(inbox,), name="qga-worker", daemon=True).start()
        self._threads += 1
        return inbox

    def _work(self, inbox: SimpleQueue[tuple[Job, Done]]) -> None:
        while True:
            job, done = inbox.get()
            result, error = None, None
            try:
                result = job()
            except BaseException as raised:
                error = raised
            self._loop.post(self._finish(inbox, done, result, error))
            del job, done, result, error  # a big result must not stay while this thread idles

    def _finish(
        self,
        inbox: SimpleQueue[tuple[Job, Done]],
        done: Done,
        result: Any,
        error: BaseException | None,
    ) -> Callable[[], None]:
        def finish() -> None:
            self._idle.append(inbox)
            done(result, error)

        return finish


def _share_one_arena() -> None:
    """Have glibc's malloc(3) give the threads no arenas of their own.

    Each keeps for good what was in use in it at its worst: tens of megabytes in all.
    """
    try:
        from ctypes import CDLL

        CDLL(None).mallopt(_M_ARENA_MAX, 1)
    except (ImportError, OSError, AttributeError):  # not glibc
        pass
