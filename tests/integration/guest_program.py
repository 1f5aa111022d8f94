"""Running a program in the guest by plain requests."""

from __future__ import annotations

import base64
from typing import Any, Optional

from tests.integration.agent_process import Client, wait_for


def start_program(client: Client, path: str, *arg: str, **more: Any) -> int:
    pid: int = client.call("guest-exec", path=path, arg=list(arg), **more)["pid"]
    return pid


def final_status(client: Client, pid: int) -> dict[str, Any]:
    """The last reply of guest-exec-status, with the streams decoded."""

    def status_at_end() -> Optional[dict[str, Any]]:
        status: dict[str, Any] = client.call("guest-exec-status", pid=pid)
        if not status["exited"]:
            assert status == {"exited": False}
        return status if status["exited"] else None

    status = wait_for(status_at_end, "the program has ended")
    for stream in ("out-data", "err-data"):
        if stream in status:
            status[stream] = base64.b64decode(status[stream], validate=True)
    return status


def run(client: Client, path: str, *arg: str, **more: Any) -> dict[str, Any]:
    return final_status(client, start_program(client, path, *arg, **more))


def output(client: Client, script: str, **more: Any) -> str:
    """The output of a shell script."""
    status = run(client, "/bin/sh", "-c", script, capture_output=True, **more)
    assert status["exitcode"] == 0, status
    text: bytes = status.get("out-data", b"")
    return text.decode()
