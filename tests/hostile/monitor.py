"""QEMU's monitor: an honest one, or one of a QEMU that its guest has taken over."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\n'


def disk(name: str = "vda", size: int = 4096, **more: Any) -> dict[str, Any]:
    """An element of the response to query-block."""
    image = {"virtual-size": size, "actual-size": 512}
    inserted = {"file": "/image", "ro": False, "node-name": "node", "image": image}
    return {"device": name, "qdev": "", "inserted": inserted, **more}


class Qemu:
    """Serves one client after the other. Jobs end at once; each client has its own.

    replies: by command, instead of the honest ones; bytes are sent as they are, functions called.
    """

    def __init__(self, path: Path, **replies: Any) -> None:
        self.path = str(path)
        self.commands: list[str] = []
        self.replies: dict[str, Any] = {"query-block": [disk()], **replies}
        self._jobs: dict[str, dict[str, Any]] = {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def __enter__(self) -> Qemu:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            try:
                with connection:
                    self._serve_client(connection)
            except OSError:
                continue

    def _serve_client(self, connection: socket.socket) -> None:
        self._jobs = {}
        unread = b""
        connection.sendall(GREETING)
        while True:
            data, descriptors, _, _ = socket.recv_fds(connection, 65536, 4)
            for descriptor in descriptors:
                os.close(descriptor)
            if not data:
                return
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                connection.sendall(self._answered(json.loads(line)))

    def _answered(self, request: dict[str, Any]) -> bytes:
        command, arguments = request["execute"], request["arguments"]
        self.commands.append(command)
        reply = self.replies.get(command)
        if callable(reply):
            reply = reply(arguments)
        if isinstance(reply, bytes):
            return reply
        if reply is None:
            reply = self._honest(command, arguments)
        members = reply if isinstance(reply, dict) and "error" in reply else {"return": reply}
        return json.dumps({**members, "id": request["id"]}).encode() + b"\n"

    def _honest(self, command: str, arguments: dict[str, Any]) -> Any:
        if command == "query-status":
            return {"status": "running"}
        if command in ("query-named-block-nodes", "query-fdsets"):
            return []
        if command == "query-jobs":
            return list(self._jobs.values())
        if command == "blockdev-create":
            self._start(arguments["job-id"])
        elif command == "transaction":
            for action in arguments["actions"]:
                self._start(action["data"].get("job-id", ""))
        elif command == "job-dismiss":
            del self._jobs[arguments["id"]]
        return {}

    def _start(self, name: str) -> None:
        ended = {"id": name, "status": "concluded", "current-progress": 1, "total-progress": 1}
        self._jobs[name] = ended
