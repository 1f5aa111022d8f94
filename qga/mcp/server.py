"""The server itself: it offers tools over standard input and output, and runs their calls.

What must stay true: however the server ends, it first cancels its calls, which kills their
programs, and thaws the filesystems that it froze.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from concurrent.futures import Future, wait
from functools import partial
from typing import Any

import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from qga.client.errors import AgentError
from qga.client.texts import reason_of
from qga.client.threads import beside
from qga.mcp import copying as copying
from qga.mcp import files as files
from qga.mcp import freezing
from qga.mcp import looking as looking
from qga.mcp import power as power
from qga.mcp import programs as programs
from qga.mcp.arguments import WrongArguments, checked, schema_of
from qga.mcp.call import CLEANING_UP, ENDING, Call, Stopped
from qga.mcp.reply import INSTRUCTIONS, error_text, text_of, visible
from qga.mcp.tools import TOOLS, Service, Tool, offered
from qga.version import __version__

UNLOGGED = "the call was not carried out, because the log cannot be written"

Outcome = tuple[str, str]
"""The text of a result or an error, and the outcome for the log: "ok" or what was wrong."""


def serve(service: Service) -> None:
    """Serve one client until it closes standard input."""
    session = Session(service)
    try:
        asyncio.run(session.run())
    except Exception as error:
        if not is_broken_pipe(error):
            raise
    finally:
        session.end()


def is_broken_pipe(error: BaseException) -> bool:
    """Whether the client reads no more; anyio raises groups of errors."""
    parts = getattr(error, "exceptions", ())
    return isinstance(error, BrokenPipeError) or (bool(parts) and all(map(is_broken_pipe, parts)))


class Session:
    """One client."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._tools = offered(service.allowed)
        self._calls: dict[Call, Future[Outcome]] = {}

    async def run(self) -> None:
        # It would end the server when its client has died, and leave guests frozen.
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        for number in ENDING:
            # Reading standard input cannot be interrupted.
            leave = partial(beside, partial(self._leave, number))
            asyncio.get_running_loop().add_signal_handler(number, leave)
        server: Server[Any] = Server(
            "qgactl",
            version=__version__,
            instructions=INSTRUCTIONS,
            on_list_tools=self._list,
            on_call_tool=self._call,
        )
        async with stdio_server() as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())

    def end(self) -> None:
        for call in [*self._calls]:
            call.cancelled.set()
        wait([*self._calls.values()], CLEANING_UP)
        freezing.thaw_all(self._service)
        self._service.trail.close()

    def _leave(self, number: int) -> None:
        self.end()
        os._exit(128 + number)

    async def _list(self, _context: Any, _params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[described(each) for each in self._tools.values()])

    async def _call(self, _context: Any, params: Any) -> types.CallToolResult:
        name, arguments = params.name, params.arguments or {}
        known = TOOLS[name].arguments if name in TOOLS else ()
        trail, start = self._service.trail, time.monotonic()
        try:
            number = trail.begin(name, arguments, known)
        except OSError as error:
            return result(f"{UNLOGGED}: {error.strerror}", is_error=True)
        outcome = "cancelled"
        try:
            text, outcome = await self._outcome(name, arguments)
        except WrongArguments as error:
            text, outcome = visible(str(error)), f"error: {error}"
        finally:
            trail.end(number, outcome, time.monotonic() - start)
        return result(text, is_error=outcome != "ok")

    async def _outcome(self, name: str, arguments: dict[str, Any]) -> Outcome:
        tool = self._tools.get(name)
        if tool is None:
            raise WrongArguments(f"no tool '{name}' is offered; see tools/list")
        values = checked(tool.arguments, arguments)
        call = Call(tool.seconds)
        work = beside(partial(outcome_of, tool, self._service, call, values))
        self._calls[call] = work
        work.add_done_callback(lambda _work: self._calls.pop(call, None))
        try:
            return await asyncio.shield(asyncio.wrap_future(work))
        finally:
            call.cancelled.set()


def result(text: str, *, is_error: bool) -> types.CallToolResult:
    content = types.TextContent(type="text", text=text)
    return types.CallToolResult(content=[content], is_error=is_error)


def described(tool: Tool) -> types.Tool:
    return types.Tool(
        name=tool.name,
        description=tool.help,
        input_schema=schema_of(tool.arguments),
        annotations=types.ToolAnnotations(
            read_only_hint=tool.reads_only,
            destructive_hint=not tool.reads_only,
            open_world_hint=True,
        ),
    )


def outcome_of(tool: Tool, service: Service, call: Call, values: dict[str, Any]) -> Outcome:
    """Carry out a call, on its own thread."""
    try:
        return text_of(tool.handler(service, call, **values)), "ok"
    except AgentError as error:  # before OSError, which some are; its text may be the guest's
        source = f"the guest '{values.get('guest', '')}'"
        return error_text(source, str(error)), f"error: {error}"
    except (WrongArguments, Stopped) as error:
        return visible(str(error)), f"error: {error}"
    except (OSError, MemoryError) as error:
        return visible(reason_of(error)), f"error: {reason_of(error)}"
    except Exception as error:  # a bug fails this call, not the server
        return f"the call failed: {type(error).__name__}", f"fault: {error!r}"
