"""A machine ends with its context, whenever that is interrupted."""

from __future__ import annotations

import signal
import subprocess
from typing import Any

import psutil
import pytest

from qga.integrations.virtual_machine import VirtualMachine


class Sleeper(VirtualMachine):
    def do_boot(self) -> None:
        self.start_qemu(lambda _descriptor: ["sleep", "1000"])


def test_an_interrupt_while_qemu_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[psutil.Process] = []

    class Popen(subprocess.Popen[bytes]):
        def _execute_child(self, *arguments: Any) -> None:
            super()._execute_child(*arguments)  # type: ignore[misc]
            started.append(psutil.Process(self.pid))
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    with pytest.raises(KeyboardInterrupt), Sleeper():
        pass
    (process,) = started
    assert not process.is_running()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
