"""Real agents to talk to: the original one, and ours."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from qga.client import AgentError, GuestAgent
from tests.differential.agents import OURS, original

AGENTS = ("original", "ours")

PATIENCE = 20.0
"""Seconds that an agent may take to listen."""


@contextmanager
def running(name: str, folder: Path, extra: Sequence[str] = ()) -> Iterator[str]:
    """Start an agent on a socket in `folder`, with `extra` options; yields its address."""
    address = f"unix:{folder / 'socket'}"
    options = ["-m", "unix-listen", "-p", str(folder / "socket"), "-t", str(folder), *extra]
    with (folder / "stderr").open("wb") as errors:
        command = original("7.2") if name == "original" else OURS
        process = subprocess.Popen([*command, *options], stdout=errors, stderr=errors)
    try:
        wait_until_it_listens(address, process, folder / "stderr")
        yield address
        assert process.poll() is None, f"the agent ended by itself: {process.returncode}"
    finally:
        # The original ends late, or never, while a reply waits that its client has left unread.
        process.send_signal(signal.SIGKILL if name == "original" else signal.SIGTERM)
        process.wait(PATIENCE)


def wait_until_it_listens(address: str, process: subprocess.Popen[bytes], errors: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with GuestAgent(address, PATIENCE):
                return
        except AgentError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"no agent: {errors.read_text()}") from error
            time.sleep(0.01)
