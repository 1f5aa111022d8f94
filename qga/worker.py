"""Threads for the handlers that may block, so that the loop never does.

What must stay true:

- A handler that never returns costs one thread for good. Threads are reused, started only if all
  others are busy, and limited in number: beyond that a command is refused, never queued behind one
  that hangs. They are daemon threads: the agent exits without waiting for them.
- No channel takes the threads of another: half of them are divided among the channels, at least
  one for each, and the rest go to whoever comes first.
- Anything urgent, such as a thaw, finds a thread whatever else hangs: each channel has MAX_URGENT
  more, for that alone.
- A handler can find out that nobody waits for its reply any longer (qga.task).
"""

from __future__ import annotations

from qga import memory, task
from qga.errors import QgaError
from qga.settings.values import MAX_THREADS
from qga.task import Task
from qga.wording import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queue import SimpleQueue
    from typing import Any, Callable, Optional

    from qga.loop import Loop

    Job = Callable[[], Any]
    Done = Callable[[Any, Optional[BaseException]], None]
    """Takes a job's result, or the exception that it raised."""

    _Order = tuple[Task, Job, Done, dict[str, int], str]

MAX_URGENT = 8
"""Further threads of each channel, for urgent commands."""


class Worker:
    """max_threads: how many commands may run at the same time. channels: how many share them."""

    def __init__(self, loop: Loop, max_threads: int = MAX_THREADS, channels: int = 1) -> None:
        self._loop = loop
        self._share = max_threads if channels == 1 else max(1, max_threads // (2 * channels))
        self._common = max(0, max_threads - self._share * channels)
        self._under_way: dict[str, int] = {}  # by channel
        self._urgent: dict[str, int] = {}
        self._idle: list[SimpleQueue[_Order]] = []
        self._threads = 0

    def submit(self, job: Job, done: Done, *, urgent: bool = False, channel: str = "") -> Task:
        """Run `job` on a thread, then `done` on the loop.

        channel: for whom. Raises QgaError if all its threads are busy with commands that do not
        return, or if the system allows no more.
        """
        busy, running = self._under_way, self._under_way.get(channel, 0)
        if running >= self._share and not self._may_borrow():
            busy = self._urgent
            if not urgent or busy.get(channel, 0) >= MAX_URGENT:
                commands = counted(running, "command is", "commands are")
                raise QgaError(f"{commands} still running; try again when one has finished")
        inbox = self._idle.pop() if self._idle else self._start_thread()
        busy[channel] = busy.get(channel, 0) + 1
        started = Task()
        inbox.put((started, job, done, busy, channel))
        return started

    def _may_borrow(self) -> bool:
        """Whether one of the threads that are not reserved for a channel is left."""
        lent = sum(max(0, count - self._share) for count in self._under_way.values())
        return lent < self._common

    def _start_thread(self) -> SimpleQueue[_Order]:
        from queue import SimpleQueue
        from threading import Thread

        if not self._threads:
            memory.tune()
        inbox: SimpleQueue[_Order] = SimpleQueue()
        thread = Thread(target=self._work, args=(inbox,), name="qga-worker", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # RLIMIT_NPROC, the unit's TasksMax=, or no memory
            raise QgaError(
                "cannot start a thread: the system limit is reached; try again later"
            ) from None
        self._threads += 1
        return inbox

    def _work(self, inbox: SimpleQueue[_Order]) -> None:
        while True:
            started, job, done, busy, channel = inbox.get()
            result, error = None, None
            task.begin(started)
            try:
                result = job()
            except BaseException as raised:
                error = raised
            self._loop.post(self._finish(inbox, done, result, error, busy, channel))
            del started, job, done, result, error  # a big result must not stay while it idles

    def _finish(
        self,
        inbox: SimpleQueue[_Order],
        done: Done,
        result: Any,
        error: BaseException | None,
        busy: dict[str, int],
        channel: str,
    ) -> Callable[[], None]:
        def finish() -> None:
            busy[channel] -= 1
            self._idle.append(inbox)
            done(result, error)

        return finish
