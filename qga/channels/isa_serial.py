"""A serial line, raw, by pyserial."""

from __future__ import annotations

import os
from errno import EINVAL
from typing import TYPE_CHECKING

from qga.channels.device import DeviceChannel
from qga.errors import ChannelError

if TYPE_CHECKING:
    from serial import Serial


class IsaSerial(DeviceChannel):
    outlives_hang_up = False  # a terminal must be opened anew after a hang-up

    _line: Serial | None = None

    def do_open_device(self) -> int:
        try:
            from serial import Serial, SerialException
        except ImportError:
            raise ChannelError(
                f"error opening channel '{self.config.path}': isa-serial needs pyserial, which "
                "this Python lacks; install python3-serial"
            ) from None
        try:
            # With an inter-byte timeout (VMIN 1) a silent line is not read as an end of file.
            self._line = Serial(self.config.path, self.config.baud, timeout=0, inter_byte_timeout=0)
        except (SerialException, ValueError, OverflowError) as error:
            code = getattr(error, "errno", None)
            raise OSError(code or EINVAL, os.strerror(code) if code else str(error)) from error
        fd: int = self._line.fileno()
        return fd

    def do_close_device(self, fd: int) -> None:
        if self._line is not None:
            self._line.close()
