"""Access to a file of the guest by plain requests."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from tests.integration.agent_process import Client


class File:
    """An open file of the guest."""

    def __init__(self, client: Client, path: Path | str, mode: str = "r") -> None:
        self.client = client
        self.handle: int = client.call("guest-file-open", path=str(path), mode=mode)

    def read(self, count: int | None = None) -> tuple[bytes, bool]:
        """The bytes read, and whether the end was reached."""
        how = {} if count is None else {"count": count}
        result = self.client.call("guest-file-read", handle=self.handle, **how)
        assert list(result) == ["count", "buf-b64", "eof"]
        data = base64.b64decode(result["buf-b64"], validate=True)
        assert result["count"] == len(data)
        return data, result["eof"]

    def write(self, data: bytes, **more: Any) -> int:
        text = base64.b64encode(data).decode()
        result = self.client.call("guest-file-write", handle=self.handle, buf_b64=text, **more)
        assert result == {"count": result["count"], "eof": False}
        count: int = result["count"]
        return count

    def seek(self, offset: int, whence: str | int = "set") -> int:
        result = self.client.call(
            "guest-file-seek", handle=self.handle, offset=offset, whence=whence
        )
        assert result == {"position": result["position"], "eof": False}
        position: int = result["position"]
        return position

    def close(self) -> None:
        assert self.client.call("guest-file-close", handle=self.handle) == {}
