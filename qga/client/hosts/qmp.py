"""Asks QEMU over QMP whether a VM is running.

QEMU serves one client of its QMP socket at a time and lets others wait. So this asks one question
and disconnects, and no answer does not mean that anything is wrong with the VM.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from qga.client.errors import AgentError
from qga.client.shapes import member, shaped
from qga.client.sockets import connect_unix

# Bytes in total. The greeting and two replies take a few hundred; events may come between them.
MOST = 256 * 1024
CHUNK = 4096


def run_state(path: str, seconds: float) -> str:
    """`running`, `paused` or another RunState of QMP; "" if QEMU does not report one in time."""
    deadline = time.monotonic() + seconds
    try:
        with closing(connect_unix(f"unix:{path}", path)) as connection:
            messages = received(connection, deadline)
            next(messages)  # the greeting
            ask("qmp_capabilities", connection, messages)
            return member(str, "status", ask("query-status", connection, messages))
    except (AgentError, OSError, ValueError, RecursionError, StopIteration):
        return ""


def ask(command: str, connection: socket.socket, messages: Iterator[dict[str, Any]]) -> object:
    connection.sendall(json.dumps({"execute": command}).encode() + b"\n")
    return next(each["return"] for each in messages if "return" in each)


def received(connection: socket.socket, deadline: float) -> Iterator[dict[str, Any]]:
    """Yield the messages, up to MOST bytes. Raises TimeoutError."""
    unread, count = b"", 0
    while count < MOST:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        data = connection.recv(CHUNK)
        if not data:
            return
        count += len(data)
        *lines, unread = (unread + data).split(b"\n")
        yield from (shaped(dict, json.loads(line)) for line in lines)
