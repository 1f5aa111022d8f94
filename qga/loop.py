"""The select loop: file descriptors, timers, and calls posted by worker threads.

While idle nothing runs: without an event, a timer or a post the process sleeps in one
epoll_wait(2) without a timeout. Everything except `post` and `call` belongs to the loop's thread.
"""

from __future__ import annotations

import heapq
import os
import select
import time
from _thread import allocate_lock
from errno import ENOMEM, ENOSPC
from math import inf

from qga.stdlib import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

    Callback = Callable[[int], None]
    """Takes the epoll events of its descriptor."""

READABLE = select.EPOLLIN
EDGES = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLET
"""Report every change once. So a virtio port whose host side is closed, which reports a hang-up for
ever, does not wake the loop."""

_LONGEST_SLEEP = 86400.0  # seconds; epoll_wait(2) takes an int of milliseconds

SLOW = 0.2
"""Seconds after which a call is logged as slow: nobody else was served meanwhile."""

ROUND = 0.01
"""Seconds of posts in a row before events get their turn, and of events before some can wait."""

_RETRY_INTERVAL = 0.5
"""Seconds until a descriptor that the kernel had no memory to watch is watched after all."""

_CLOSED = -1  # in place of a descriptor: writing to it fails


class Timer:
    """A call at a later time, unless `cancel` is called before."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], None] | None) -> None:
        self.when = when
        self.callback = callback

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when

    def cancel(self) -> None:
        self.callback = None


def _raise(error: Exception) -> None:
    raise error


class Loop:
    """on_fault: called with the exception of a callback, which does not end the loop."""

    def __init__(self, on_fault: Callable[[Exception], None] = _raise) -> None:
        self._on_fault = on_fault
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        # Descriptors that an earlier callback of the same poll closed: their events must not reach
        # whoever got the number since.
        self._forgotten: set[int] = set()
        # Events to watch for as soon as the kernel has memory for it, by descriptor.
        self._unregistered: dict[int, int] = {}
        self._retry: Timer | None = None  # while there are any
        self._timers: list[Timer] = []
        self._set_alarm: Callable[[float], object] | None = None
        self._alarm: Timer | None = None  # the timer that it is set for
        self._posts: deque[Callable[[], None]] = deque()
        self._end_of_round = inf
        self._running = False
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        self.watch(self._wake_read, self._run_posts)

    def watch(self, fd: int, callback: Callback, events: int = READABLE) -> None:
        """Call `callback` whenever `fd` has one of `events`."""
        self._register(fd, events)
        self._callbacks[fd] = callback

    def rewatch(self, fd: int, events: int) -> None:
        """Watch `fd` for other events."""
        if fd in self._unregistered:
            self._unregistered[fd] = events
        else:
            self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        """Stop watching `fd`, which must still be open."""
        if self._callbacks.pop(fd, None) is not None:
            if self._unregistered.pop(fd, None) is None:
                self._epoll.unregister(fd)
            elif self._retry and not self._unregistered:
                self._retry.cancel()
                self._retry = None
            self._forgotten.add(fd)

    def _register(self, fd: int, events: int) -> None:
        try:
            self._epoll.register(fd, events)
        except OSError as error:
            if error.errno not in (ENOMEM, ENOSPC):  # ENOSPC: the limit max_user_watches
                raise
            if self._retry is None:
                self._retry = self.call_later(_RETRY_INTERVAL, self._register_again)
            self._unregistered[fd] = events

    def _register_again(self) -> None:
        self._retry = None
        unregistered, self._unregistered = self._unregistered, {}
        for fd, events in unregistered.items():
            try:
                self._register(fd, events)
            except OSError as error:
                del self._callbacks[fd]
                self._on_fault(error)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(time.monotonic() + seconds, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def post(self, callback: Callable[[], None], *, wake: bool = True) -> None:
        """Make the loop call `callback` soon. Any thread may, also after the loop was closed.

        wake: False if it may wait for the next post, such as the end of a command on a thread.
        """
        self._posts.append(callback)
        if wake:
            self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"\0")
        except OSError:  # the pipe is full of wake-ups already, or closed
            pass

    def call(self, callback: Callable[[], None]) -> None:
        """Make the loop call `callback`, and wait for that. Only another thread may."""
        done = allocate_lock()
        done.acquire()

        def call_and_tell() -> None:
            try:
                callback()
            finally:
                done.release()

        self.post(call_and_tell)
        done.acquire()

    def use_alarm(self, set_alarm: Callable[[float], object]) -> None:
        """Wait for timers by an alarm, instead of a time limit of each epoll_wait(2).

        A time limit takes a fifth of the time of a short request, and a service has a timer always,
        for its watchdog.

        set_alarm: takes seconds, after which a watched descriptor becomes readable. Its callback
            must call `alarm_rang`.
        """
        self._set_alarm = set_alarm

    def alarm_rang(self) -> None:
        self._alarm = None

    def run(self) -> None:
        """Serve until `stop`."""
        self._running = True
        poll, callbacks = self._epoll.poll, self._callbacks
        timers, forgotten = self._timers, self._forgotten
        while self._running:
            if timers and timers[0] is not self._alarm:
                happened = poll(self._time_limit())
            else:
                happened = poll()
            if forgotten:
                forgotten.clear()
            self._end_of_round = time.monotonic() + ROUND if len(happened) > 1 else inf
            for fd, events in happened:
                if fd in forgotten:
                    continue
                try:
                    callbacks[fd](events)
                except Exception as error:
                    self.unwatch(fd)  # level-triggered, it would fail again at once
                    self._on_fault(error)
            # The alarm is not relied on: another process of root's may have read its byte.
            if timers and (timers[0] is not self._alarm or timers[0].when <= time.monotonic()):
                self._run_timers()

    def is_round_over(self) -> bool:
        """Whether the events at hand have taken ROUND already, and what can wait should."""
        return time.monotonic() > self._end_of_round

    def stop(self) -> None:
        """Make `run` return after the events at hand."""
        self._running = False

    def close(self) -> None:
        self._epoll.close()
        wake, self._wake_write = self._wake_write, _CLOSED
        os.close(wake)
        os.close(self._wake_read)

    def _time_limit(self) -> float | None:
        """Seconds to sleep at most; None if there are no timers, or an alarm is set."""
        seconds = self._time_to_next_timer()
        # Not while the descriptor that the alarm makes readable may be unregistered.
        if seconds and self._set_alarm is not None and not self._unregistered:
            self._alarm = self._timers[0]
            self._set_alarm(seconds)
            return None
        return seconds

    def _time_to_next_timer(self) -> float | None:
        """Seconds to the next timer, 0 if it is due; None if there are no timers."""
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        seconds = self._timers[0].when - time.monotonic()
        return 0.0 if seconds < 0 else seconds if seconds < _LONGEST_SLEEP else _LONGEST_SLEEP

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0].when <= now:
            callback = heapq.heappop(self._timers).callback
            if callback is not None:
                self._call(callback)

    def _run_posts(self, _events: int) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:  # another process read it through /proc/PID/fd
            pass
        # Only the present ones: a callback that posts another must not keep events waiting. Nor
        # must many of them, such as the ends of commands.
        end = time.monotonic() + ROUND
        for _ in range(len(self._posts)):
            self._call(self._posts.popleft())
            if time.monotonic() > end:
                self._wake()
                break

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as error:
            self._on_fault(error)
