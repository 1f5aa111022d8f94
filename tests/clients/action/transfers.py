"""An action that times the connection plugin itself: one program, and a file there and back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> Any:
        result = super().run(tmp, task_vars)
        connection, arguments = self._connection, self._task.args
        there = connection._shell.join_path(self._make_tmp_path(), "source")
        result["seconds"] = {
            "exec_command": seconds(lambda: connection.exec_command("/bin/true", sudoable=False)),
            "put_file": seconds(lambda: connection.put_file(arguments["src"], there)),
            "fetch_file": seconds(lambda: connection.fetch_file(there, arguments["dest"])),
        }
        return result


def seconds(work: Callable[[], Any]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start
