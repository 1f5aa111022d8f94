"""A plugin with commands that wait until the test lets them continue."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.integration.agent_process import AgentProcess, listening, request, wait_for

GATES = '''
import os
from itertools import repeat
from threading import current_thread
from time import sleep
from qga import CommandGroup, command, until_given_up

class Gates(CommandGroup):
    """Commands that wait."""

    @command(blocking=True)
    def qga_wait(self, gate: str) -> str:
        """What is written into the FIFO `gate`."""
        with open(gate + ".reached", "a") as file:
            file.write(".")
        with open(gate) as fifo:
            return fifo.read()

    @command(blocking=True)
    def qga_go_round(self, note: str) -> None:
        """Goes on until nobody waits for it, and then leaves a note."""
        try:
            for _ in until_given_up(repeat(None)):
                sleep(0.01)
        finally:
            open(note, "w").close()

    @command(blocking=True)
    def qga_echo(self, text: str) -> str:
        """`text`, by way of a thread."""
        return text

    @command(blocking=True)
    def qga_thread(self, *, may_wait: bool) -> str:
        """Where it runs: on a thread only while something is to be waited for."""
        if os.path.exists("{busy}") and not may_wait:
            raise BlockingIOError
        return current_thread().name

    @command(blocking=True)
    def qga_slow_nonsense(self) -> str:
        """What JSON does not know, by way of a thread."""
        return {1, 2}

    @command(blocking=False)
    def qga_nonsense(self) -> str:
        """What JSON does not know."""
        return {1, 2}

    @command(blocking=False)
    def qga_fault(self) -> str:
        """A fault of its own."""
        return "" + 1
'''


class Gate:
    """The gate at which one qga-wait waits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reached = Path(f"{path}.reached")
        self._reached.touch()
        self._awaited = 0
        os.mkfifo(path)

    @property
    def request(self) -> bytes:
        return request("qga-wait", tag=f"gate {self.path.name}", gate=str(self.path))

    def wait_until_reached(self) -> None:
        """Wait until another command has arrived."""
        self._awaited += 1
        wait_for(lambda: self._reached.stat().st_size >= self._awaited, "the command runs")

    def open(self, text: str) -> None:
        """Let one command continue, which returns `text`."""
        self.path.write_text(text)

    def open_for_all(self) -> None:
        """Let all waiting commands continue; each returns nothing."""
        try:
            os.close(os.open(self.path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise


@contextmanager
def with_gates(folder: Path, settings: str = "", **how: Any) -> Iterator[AgentProcess]:
    plugins = folder / "plugins"
    plugins.mkdir(mode=0o755)
    (plugins / "gates.py").write_text(GATES.replace("{busy}", str(folder / "busy")))
    (plugins / "gates.py").chmod(0o644)
    config = f"[general]\nplugin-dir={plugins}\n{settings}"
    with listening(folder, config=config, **how) as agent:
        yield agent
