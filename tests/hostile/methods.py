"""Calls every public method of the library, and reports the outcome of each."""

from __future__ import annotations

import inspect
import json
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from qga.client import (
    AgentError,
    DataPorts,
    GuestAgent,
    PlainProgram,
    StreamedProgram,
    start_streamed,
)
from qga.client.captured import environment
from qga.client.conversion import plain
from qga.client.data_ports import guest_ports
from qga.client.hosts.checkup import checkup
from qga.client.monitoring.metrics import read_metrics
from qga.client.programs import Program

# Not methods for commands: they run any command, or report limits of the transport.
GENERAL = {"call", "order", "close", "max_data", "max_output"}

# Values for parameters without a default, by name.
ARGUMENTS: dict[str, Any] = {
    "argv": ["true"],
    "count": 4,
    "data": b"text",
    "destination": "snapshot",
    "handle": 1,
    "host": "127.0.0.1",
    "keys": ["key"],
    "mountpoint": "/",
    "number": 1,
    "offset": 0,
    "online": {1: True},
    "password": "secret",
    "path": "/file",
    "pid": 1,
    "port": "org.qga.data.0",
    "rows": 24,
    "columns": 80,
    "signal": 9,
    "tunnel": 1,
    "username": "root",
}

# Optional parameters without which a call may never end.
LIMITS = ("timeout",)

# What is taken of a file that may never end.
PIECES = 8


def names() -> list[str]:
    """The names of methods for commands."""
    public = inspect.getmembers(GuestAgent, inspect.isfunction)
    return [name for name, _ in public if not name.startswith("_") and name not in GENERAL]


def calls(agent: GuestAgent, seconds: float) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every method, and every function that asks a guest."""
    for name in names():
        method = getattr(agent, name)
        yield name, partial(use, method, seconds)
    yield "echo(7)", lambda: agent.echo(7)
    yield "read_metrics", lambda: read_metrics(agent, seconds)
    yield "checkup", lambda: list(checkup(agent.address, seconds))
    yield "environment", lambda: environment(agent, min(seconds, 1))
    yield "guest_ports", lambda: guest_ports(agent)
    yield "open_free", lambda: DataPorts(agent.address).open_free(agent)
    for kind in (PlainProgram, StreamedProgram, start_streamed):
        yield kind.__name__, partial(run_to_its_end, kind, agent, seconds)


def run_to_its_end(kind: Callable[..., Program], agent: GuestAgent, seconds: float) -> None:
    deadline = time.monotonic() + min(seconds, 1)
    with kind(agent, ["true"]) as program:
        while program.result is None and time.monotonic() < deadline:
            program.poll()
            program.write(b"text")
            time.sleep(0.01)
        program.abandon()


def arguments_of(method: Callable[..., Any], seconds: float) -> dict[str, Any]:
    chosen = {}
    for name, parameter in inspect.signature(method).parameters.items():
        if name in LIMITS:
            chosen[name] = min(seconds, 1)
        elif (
            parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
        ):
            chosen[name] = ARGUMENTS[name]
    return chosen


def use(method: Callable[..., Any], seconds: float) -> None:
    """Call a method, and use its result as a caller would."""
    value = method(**arguments_of(method, seconds))
    if hasattr(value, "__enter__"):
        with value:
            return
    if inspect.isgenerator(value):  # one that reads for as long as the guest gives something
        value = [len(data) for data in islice(value, PIECES)]  # type: ignore[arg-type]
    json.dumps(plain(value), allow_nan=False)
    str(value).encode()


def call_all(order: list[Any]) -> None:
    address, seconds = order
    for name, call in calls(GuestAgent(address, seconds), seconds):
        start, outcome = time.monotonic(), ""
        try:
            call()
        except AgentError as error:
            outcome = f"{type(error).__name__}: {str(error)[:300]}"
        except BaseException:
            outcome = traceback.format_exc()
        seconds_taken = round(time.monotonic() - start, 3)
        print(json.dumps([name, outcome, seconds_taken]), flush=True)
