"""A callback plugin that prints each result as a line of JSON, in every version of Ansible."""

from __future__ import annotations

import json
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: results
type: stdout
short_description: A line of JSON for each result
description: [For the tests.]
"""


class CallbackModule(CallbackBase):
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "results"

    def __init__(self) -> None:
        super().__init__()
        self._starts: dict[str, float] = {}

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self._starts[host.get_name()] = time.monotonic()

    def v2_runner_on_ok(self, result: Any) -> None:
        self._print("ok", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._print("failed", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._print("unreachable", result)

    def _print(self, status: str, result: Any) -> None:
        host = result._host.get_name()
        line = {
            "host": host,
            "task": result._task.get_name(),
            "status": status,
            "seconds": time.monotonic() - self._starts[host],
            "result": result._result,
        }
        print(json.dumps(line, default=str))
