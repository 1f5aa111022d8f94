"""Tools that read and write files in a guest."""

from __future__ import annotations

import base64
from typing import Any

from qga.mcp.arguments import Argument
from qga.mcp.call import Agent, Call
from qga.mcp.reply import Data, Note
from qga.mcp.tools import GUEST, Service, tool
from qga.wording import counted

MOST_READ = 128 * 1024
"""Bytes of a file in one result."""

MOST_WRITTEN = 1024 * 1024
"""Characters of a file in one call."""

LARGEST_OFFSET = 2**62

PATH = Argument("path", "string", "the absolute path of a file of the guest", True)


@tool(
    GUEST,
    PATH,
    Argument("offset", "integer", "the first byte (default: 0)", least=0, most=LARGEST_OFFSET),
    Argument("length", "integer", "the most bytes to read", least=1, most=MOST_READ),
)
def read_file(
    service: Service, call: Call, guest: str, path: str, offset: int = 0, length: int = MOST_READ
) -> Data:
    """Read a file of a guest, or a part of it. What is not UTF-8 comes as base64."""
    with service.guests.agent(guest, call) as agent, agent.opened(path) as handle:
        if offset:
            agent.file_seek(handle, offset)
        return piece(agent, handle, guest, path, length)


@tool(
    GUEST,
    PATH,
    Argument("length", "integer", "the most bytes to read", least=1, most=MOST_READ),
)
def read_log_file(
    service: Service, call: Call, guest: str, path: str, length: int = MOST_READ
) -> Data:
    """Read the last lines of a log file of a guest, such as /var/log/syslog."""
    with service.guests.agent(guest, call) as agent, agent.opened(path) as handle:
        size = agent.file_seek(handle, 0, "end").position
        agent.file_seek(handle, max(0, size - length))
        return piece(agent, handle, guest, path, length)


def piece(agent: Agent, handle: int, guest: str, path: str, length: int) -> Data:
    content = bytearray()
    at_end = False
    while len(content) < length and not at_end:
        chunk = agent.file_read(handle, length - len(content))
        content += chunk.data
        at_end = chunk.eof or not chunk.data
    value = {"path": path, **text_or_bytes("content", bytes(content[:length])), "at-end": at_end}
    return Data(f"the guest '{guest}'", value)


def text_or_bytes(name: str, data: bytes) -> dict[str, Any]:
    """Bytes as text if they are UTF-8, otherwise as base64. A character cut off at the end is
    dropped.

    Bytes with NUL characters are not text; JSON would make them six times as long.
    """
    for end in (len(data), *(len(data) - cut for cut in (1, 2, 3) if len(data) > cut)):
        try:
            text = data[:end].decode()
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return {name: text}
    return {f"{name}-base64": base64.b64encode(data).decode("ascii")}


@tool(
    GUEST,
    PATH,
    Argument("content", "string", "the text", True, longest=MOST_WRITTEN, secret=True),
    Argument("append", "boolean", "add it to the end of the file instead of replacing it"),
    needs=("write",),
    reads_only=False,
)
def write_file(
    service: Service, call: Call, guest: str, path: str, content: str, append: bool = False
) -> Note:
    """Write text into a file of a guest. The file is created, or its content is replaced."""
    data = content.encode()
    mode = "a" if append else "w"
    with service.guests.agent(guest, call) as agent, agent.opened(path, mode) as handle:
        agent.file_write_all(handle, data)
        agent.file_flush(handle)
    return Note(f"{counted(len(data), 'byte')} written.")
