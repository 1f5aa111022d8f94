"""The requests of the exporter's clients: each has a deadline, and none is logged."""

from __future__ import annotations

import io
import socket
import time
from typing import Any, ClassVar
from wsgiref.simple_server import WSGIRequestHandler

CLIENT_LIMIT = 10  # seconds for a client to send its request, and again to read the page


class Handler(WSGIRequestHandler):
    timeout: ClassVar[float] = CLIENT_LIMIT

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(Request(self.connection, self.timeout))

    def get_stderr(self) -> Any:
        """Discard the traceback that wsgiref prints when a client stops reading."""
        return io.StringIO()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: there is a scrape every few seconds."""


class Request(io.RawIOBase):
    """What a client sends. Raises TimeoutError if it takes longer than `seconds` in all.

    The timeout of a socket would start anew with each byte.
    """

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        try:
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(self._seconds)  # for the answer
