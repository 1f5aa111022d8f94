"""A serial line, raw, by pyserial."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qga.channels.device import DeviceChannel

if TYPE_CHECKING:
    from serial import Serial


class IsaSerial(DeviceChannel):
    _line: Serial | None = None

    def open_device(self) -> int:
        from serial import Serial, SerialException

        try:
            self._line = Serial(self.config.path, baudrate=self.config.baud, timeout=0)
        except SerialException as error:
            raise OSError(error.errno, os.strerror(error.errno or 0)) from error
        fd: int = self._line.fileno()
        return fd

    def close_device(self, fd: int) -> None:
        if self._line is not None:
            self._line.close()
