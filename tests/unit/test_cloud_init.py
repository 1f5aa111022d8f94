"""The state of cloud-init, from its files and its units."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

readiness: Any = import_module("qga.commands._readiness")

RUNNING = ("status.json", '{"v1": {"stage": "init"}}')
DONE = ("result.json", '{"v1": {"errors": []}}')
FAILED = {"state": "error", "errors": ["cloud-init.service has failed"]}


@pytest.mark.parametrize(
    ("files", "state"),
    [
        ([RUNNING], FAILED),
        ([("status.json", "half")], FAILED),
        ([("result.json", "[" * 100_000)], FAILED),
        ([], FAILED),
        ([RUNNING, DONE], {"state": "done"}),
        ([("disabled", "")], {"state": "disabled"}),
    ],
)
def test_a_stage_has_crashed(
    files: list[tuple[str, str]],
    state: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readiness, "_CLOUD_INIT", str(tmp_path))
    for name, content in files:
        (tmp_path / name).write_text(content)
    assert readiness.cloud_init(["ssh.service", "cloud-init.service"]) == state


def test_another_unit_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_CLOUD_INIT", str(tmp_path))
    (tmp_path / RUNNING[0]).write_text(RUNNING[1])
    expected = {"state": "running", "stage": "init"}
    assert readiness.cloud_init(["cloud-init-hotplugd.service"]) == expected
