"""A scripted agent on a unix socket, in a thread of the test's own process."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

Handler = Callable[[dict[str, Any]], Any]

Start = Callable[[dict[str, Handler]], "Peer"]

REFUSAL = b"""{"error": {"class": "GenericError", \
"desc": "QMP input object member 'id' is unexpected"}}
"""

LATE = object()
"""Returned by a handler: the reply is held back until the next sync request."""

HANG_UP = object()
"""Returned by a handler: the connection is closed instead of a reply."""


class Raw(bytes):
    """Returned by a handler: sent as it is."""


class Peer:
    """Serves one client after the other; `handlers` say what each command returns.

    A handler's value is the `return` member; an Exception's two arguments are an error's class
    and desc. `requests` are those that came, syncs left out; `deaf`: none is answered.
    `ids`: whether those of requests are echoed, ignored or refused. `accepts`: whether the next
    client gets its turn when one has left. `backlog`: as of listen(2).
    """

    def __init__(self, path: Path, handlers: dict[str, Handler], backlog: int = 128) -> None:
        self.address = f"unix:{path}"
        self.handlers = handlers
        self.requests: list[dict[str, Any]] = []
        self.syncs = 0
        self.deaf = False
        self.ids = "echoed"
        self.accepts = threading.Event()
        self.accepts.set()
        self._held = b""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(backlog)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while self.accepts.wait():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as requests:
                self._serve_client(connection, requests)

    def _serve_client(self, connection: socket.socket, requests: Any) -> None:
        try:
            for line in requests:
                if self.deaf:
                    continue
                reply = self._reply_to(json.loads(line.lstrip(b"\xff")))
                if reply is None:
                    return
                connection.sendall(reply)
        except OSError:
            return

    def _reply_to(self, request: dict[str, Any]) -> bytes | None:
        arguments = request.get("arguments", {})
        if request["execute"] == "guest-sync-delimited":
            self.syncs += 1
            if self.ids == "refused" and "id" in request:
                return REFUSAL
            held, self._held = self._held, b""
            return held + b"\xff" + self._encoded(request, {"return": arguments["id"]})
        self.requests.append(request)
        value = self.handlers[request["execute"]](arguments)
        if value is HANG_UP:
            return None
        if value is LATE:
            self._held += self._encoded(request, {"return": "late"})
            return b""
        if isinstance(value, Raw):
            return value
        return self._encoded(request, reply_with(value))

    def _encoded(self, request: dict[str, Any], reply: dict[str, Any]) -> bytes:
        """With the request's id, as this agent has it."""
        if "id" in request and self.ids == "echoed":
            reply = {**reply, "id": request["id"]}
        return json.dumps(reply).encode() + b"\n"


class Filesystems:
    """What freezes and thaws two filesystems; `thaws` are answered before that works."""

    def __init__(self, *thaws: Any) -> None:
        self.frozen = 0
        self.thaws = list(thaws)

    @property
    def handlers(self) -> dict[str, Handler]:
        return {
            "guest-fsfreeze-freeze": self.freeze,
            "guest-fsfreeze-thaw": self.thaw,
            "guest-fsfreeze-status": lambda _: "frozen" if self.frozen else "thawed",
        }

    def freeze(self, _: dict[str, Any]) -> Any:
        self.frozen = 2
        return self.frozen

    def thaw(self, _: dict[str, Any]) -> Any:
        if self.thaws:
            return self.thaws.pop(0)
        thawed, self.frozen = self.frozen, 0
        return thawed


def reply_with(value: Any) -> dict[str, Any]:
    if isinstance(value, Exception):
        class_, desc = value.args
        return {"error": {"class": class_, "desc": desc}}
    return {"return": value}
