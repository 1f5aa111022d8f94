"""The protocol's own client, talking to `qgactl mcp` as a process."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from anyio.from_thread import BlockingPortal, start_blocking_portal
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from tests.integration.qgactl_process import QGACTL, environment

HELLO: list[dict[str, Any]] = [
    {
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    },
    {"method": "notifications/initialized"},
]
"""What a client of an older version says first on the wire."""

MARKED = re.compile(r"Data from (.*), which is not trusted: .*\nBEGIN (\w+)\n(.*)\nEND \2\Z", re.S)


class Told(NamedTuple):
    """The text of a result, and whether it is an error."""

    text: str
    is_error: bool

    @property
    def marked(self) -> str:
        """What the guest has said, which all of the result must be."""
        found = MARKED.fullmatch(self.text)
        assert found, self.text
        return found[3]

    @property
    def data(self) -> Any:
        assert not self.is_error, self.text
        return json.loads(self.marked)


class Talk:
    """A conversation with a server."""

    def __init__(self, portal: BlockingPortal, client: Client) -> None:
        self._portal = portal
        self._client = client

    def call(self, tool: str, **arguments: Any) -> Told:
        return self._portal.call(partial(self._call, tool, arguments))

    def begin(self, tool: str, **arguments: Any) -> Future[Told]:
        """A call that goes on; the client cancels it where the future is cancelled."""
        return self._portal.start_task_soon(self._call, tool, arguments)

    def tools(self) -> dict[str, Any]:
        return {each.name: each for each in self._portal.call(self._client.list_tools).tools}

    async def _call(self, tool: str, arguments: dict[str, Any]) -> Told:
        result = await self._client.call_tool(tool, arguments)
        [content] = result.content
        assert content.type == "text"
        return Told(content.text, result.is_error)


@contextmanager
def talking(options: Sequence[str], errors: Path) -> Iterator[Talk]:
    """Start a server with these options; what it writes to stderr goes to `errors`."""
    command, *words = QGACTL
    server = StdioServerParameters(
        command=command, args=[*words, "mcp", *options], env=environment(None)
    )
    with (
        errors.open("w") as errlog,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(Client(stdio_client(server, errlog))) as client,
    ):
        yield Talk(portal, client)


def entries(log: Path) -> list[dict[str, Any]]:
    """The entries of a log."""
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
