"""A guest that lies about its files: an agent with false answers to qgactl's scripts."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.unit.client_peer import Peer

FILE, DIRECTORY, LINK = 0o100644, 0o040755, 0o120777

ENDLESS = b"endless\n" * 8192
"""The bytes that each read of an endless file returns."""

PATIENCE = 512 * 1024 * 1024
"""Bytes after which an endless file ends nevertheless, so that a failing test ends."""


class Listed(NamedTuple):
    """A file as the guest lists it. The content is always the same."""

    name: bytes
    mode: int = FILE
    size: int = len(b"content")
    target: bytes = b""


class HostileGuest:
    """The guest lists these files below /x, whatever their names."""

    def __init__(
        self, folder: Path, *files: Listed, endless: bool = False, announced: int = 6
    ) -> None:
        self.files = files
        self.endless = endless
        self.announced = announced
        self.served = 0
        """Bytes that qgactl has read."""
        self.runs_for_ever = False
        """Whether it reports this for every program."""
        self.signals: list[str] = []
        """The signals that were to be sent to its programs."""
        self.dawdles = 0.0
        """Seconds that it takes for each byte."""
        self._results: dict[int, bytes] = {}
        self._peer = Peer(folder / "hostile", self._handlers())
        self.address = self._peer.address

    def __enter__(self) -> HostileGuest:
        return self

    def __exit__(self, *error: object) -> None:
        self._peer.close()

    def _handlers(self) -> dict[str, Callable[[dict[str, Any]], Any]]:
        missing = Exception("CommandNotFound", "no such command")
        return {
            "guest-info": lambda _: {"version": "10.2.0", "supported_commands": []},
            "guest-exec": self._exec,
            "guest-exec-status": self._status,
            "guest-file-open": lambda _: 1000,
            "guest-file-read": self._read,
            "guest-file-write": self._write,
            "guest-file-flush": lambda _: {},
            "guest-file-close": lambda _: {},
            "qga-file-checksum": lambda _: missing,
        }

    def _exec(self, arguments: dict[str, Any]) -> Any:
        _, script, _, *words = arguments["arg"]
        if "kill -s" in script:
            self.signals.append(words[0])
        pid = len(self._results) + 1
        self._results[pid] = self._output(script, words)
        return {"pid": pid}

    def _output(self, script: str, words: list[str]) -> bytes:
        if "-mindepth" in script:
            return b"".join(b"1\n%x %d\n%s\0" % (f.mode, f.size, f.name) for f in self.files)
        if "readlink -n" in script:
            return b"".join(f.target + b"\0" for f in self.files if f.mode == LINK)
        if "sha256sum" in script and words:
            return b"%s\n" % hashlib.sha256(b"content").hexdigest().encode() * (len(words) // 3)
        if "stat -L" in script:
            return b"81a4 %d\n" % self.announced if self.endless else b"41ed 4096\n"
        return b""

    def _status(self, arguments: dict[str, Any]) -> Any:
        if self.runs_for_ever:
            return {"exited": False}
        output = base64.b64encode(self._results[arguments["pid"]]).decode()
        return {"exited": True, "exitcode": 0, "out-data": output}

    def _read(self, arguments: dict[str, Any]) -> Any:
        data = ENDLESS if self.endless else b"content"
        if self.dawdles:
            time.sleep(self.dawdles)
            data = data[:1]
        self.served += len(data)
        ends = not self.endless or self.served > PATIENCE
        text = base64.b64encode(data).decode()
        return {"count": len(data), "buf-b64": text, "eof": ends}

    def _write(self, arguments: dict[str, Any]) -> Any:
        time.sleep(self.dawdles)
        return {"count": 1, "eof": False}
