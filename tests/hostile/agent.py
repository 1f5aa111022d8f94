"""A hostile agent on a unix socket: it answers a sync correctly, and then sends anything.

A scenario is a function that takes the request and the honest reply and yields the bytes to send.
HangUp closes the connection. Everything runs in threads of the test.

    .venv/bin/python -m tests.hostile.agent SOCKET SCENARIO     # to try one by hand
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.hostile import honest

Request = dict[str, Any]
Scenario = Callable[[Request, Any], Iterator[bytes]]


class HangUp(Exception):
    """Raised by a scenario to close the connection."""


class HostileAgent:
    """Serves any number of clients; a context. `scenario` may be changed at any time."""

    def __init__(self, path: Path, scenario: Scenario) -> None:
        self.address = f"unix:{path}"
        self.scenario = scenario
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._connections: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> HostileAgent:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._connections):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError, HangUp), connection.makefile("rb") as requests:
            for line in requests:
                request = json.loads(line.rpartition(b"\xff")[2])
                for piece in answers(request, self.scenario):
                    connection.sendall(piece)
        self._connections.discard(connection)


def answers(request: Request, scenario: Scenario) -> Iterator[bytes]:
    """The pieces to send for one request."""
    command, arguments = request["execute"], request.get("arguments", {})
    if command == "guest-sync-delimited":
        return iter([b"\xff" + encode(request, arguments["id"])])
    return scenario(request, honest.replies().get(command, {}))


def encode(request: Request, value: Any) -> bytes:
    """An honest reply, with the request's id."""
    reply = {"return": value}
    if "id" in request:
        reply["id"] = request["id"]
    return json.dumps(reply).encode() + b"\n"


if __name__ == "__main__":
    from tests.hostile.scenarios import SCENARIOS

    with HostileAgent(Path(sys.argv[1]), SCENARIOS[sys.argv[2]]) as agent:
        print(agent.address, flush=True)
        threading.Event().wait()
