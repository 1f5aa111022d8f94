"""Cancels coroutines of the library in the middle of their work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

Call = Coroutine[Any, Any, object]


async def cancelled(
    call: Call, after: Callable[[], object], then: Callable[[], object] = lambda: None
) -> float:
    """Cancel a call as soon as `after` is true; returns how many seconds it went on.

    `after` is called on a thread, so it may ask the guest. `then` is called 0.1 s after it was
    cancelled, for a peer that answers only then.
    """
    task = asyncio.ensure_future(call)
    while not await asyncio.get_running_loop().run_in_executor(None, after):
        assert not task.done(), task
        await asyncio.sleep(0.005)
    start = time.monotonic()
    task.cancel()
    asyncio.get_running_loop().call_later(0.1, then)
    with pytest.raises(asyncio.CancelledError):
        await task
    return time.monotonic() - start
