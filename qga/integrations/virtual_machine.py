"""A QEMU of one's own: started, watched and ended, so that nothing of it is left.

QEMU's package for that, qemu.machine, is not on PyPI.

What must stay true: QEMU does not outlive its VirtualMachine. It is killed when the context exits,
also if it never got that far, or by the kernel when this process dies.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from qga.client.texts import reason_of

if TYPE_CHECKING:
    from typing_extensions import Self

DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")

# Lines of QEMU's output and of the console that an error quotes, and bytes that are read for them.
TAIL_LINES = 40
MOST_TAIL = 64 * 1024


class GuestError(Exception):
    """The guest did not boot, or something in it failed."""


class VirtualMachine:
    """QEMU, and a directory for its sockets and logs; use it as a context manager.

    console_log: where `console_options` let QEMU write what the guest's console shows.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="qga-guest-"))
        self.console_log = self.folder / "console.log"
        self.qmp_path = str(self.folder / "qmp")
        self.qemu: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.do_boot()
        except BaseException as error:
            console = self.console_tail()
            self.end()
            if isinstance(error, (OSError, EOFError)):
                raise GuestError(
                    f"the guest did not boot: {reason_of(error)}\n{console}"
                ) from error
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def do_boot(self) -> None:
        """Start QEMU by `start_qemu`, and wait for the guest. An OSError says why it is not up."""
        raise NotImplementedError

    def start_qemu(self, argv_for: Callable[[int], list[str]]) -> None:
        """Start QEMU with the arguments for this descriptor, on which its monitor has to listen."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.qmp_path)
            listener.listen(1)
            descriptor = listener.fileno()
            # An interrupt within Popen would leave us a process that we do not know.
            with (self.folder / "qemu.log").open("wb") as log, interrupts_held():
                self.qemu = subprocess.Popen(
                    [*DIES_WITH_US, *argv_for(descriptor)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=[descriptor],
                    # The terminal's Ctrl-C is for us; we end QEMU when we have finished.
                    start_new_session=True,
                )
        # Only QEMU holds the listening end now: when it dies, so does a connection to it.

    def monitor_options(self, descriptor: int) -> list[str]:
        """QEMU's arguments for QMP at `qmp_path`, without a display."""
        chardev = f"socket,id=qmp,fd={descriptor},server=on,wait=off"
        plain = ["-display", "none", "-nodefaults", "-no-user-config"]
        return [*plain, "-chardev", chardev, "-mon", "chardev=qmp,mode=control"]

    def console_options(self) -> list[str]:
        """QEMU's arguments for the chardev `console`."""
        return ["-chardev", f"file,id=console,path={self.console_log}"]

    def has_ended(self) -> bool:
        """Whether QEMU has ended by itself."""
        return self.qemu is not None and self.qemu.poll() is not None

    def console_tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines of QEMU's output and of the guest's console, and QEMU's exit status."""
        text = ""
        if self.qemu is not None and self.has_ended():
            text = f"--- QEMU has ended by itself, with status {self.qemu.returncode} ---\n"
        for log in (self.folder / "qemu.log", self.console_log):
            if log.exists():
                text += "\n".join([f"--- {log.name} ---", *last_lines(log, lines), ""])
        return text

    def wait(self) -> None:
        """Wait until QEMU ends by itself."""
        if self.qemu is not None:
            self.qemu.wait()

    def end(self) -> None:
        """Kill QEMU and remove what it left; may be called twice."""
        self.on_end()
        if self.qemu is not None:
            self.qemu.kill()
            self.qemu.wait()
            self.qemu = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def on_end(self) -> None:
        """Called before QEMU is killed, also if it was never started, and maybe twice."""


@contextmanager
def interrupts_held() -> Iterator[None]:
    """A context in which SIGINT has to wait until its end."""
    if threading.current_thread() is not threading.main_thread():  # which it does not interrupt
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        for number in came[:1]:
            signal.raise_signal(number)


def last_lines(path: Path, count: int) -> list[str]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - MOST_TAIL))
        return file.read(MOST_TAIL).decode(errors="replace").splitlines()[-count:]
