"""The figures for monitoring: what is made of the kernel's, and that they fit their types."""

from __future__ import annotations

import os
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from qga.plugin import schema
from qga.plugin.entry import function_of

metrics: Any = import_module("qga.commands.metrics")
mounts: Any = import_module("qga.commands._mounts")
GROUP: Any = metrics.Metrics(None)


def reply_of(handler: Any) -> Any:
    """What a handler returns, checked against its annotation."""
    returns = schema.signature(function_of(handler), frozenset()).returns
    return schema.checker(returns, vars(metrics))(handler(), "reply")


def test_the_reply_is_as_it_is_described() -> None:
    reply = reply_of(GROUP.qga_get_metrics)
    assert reply["cpus"]
    assert reply["memory"]["total-bytes"] > reply["memory"]["available-bytes"] > 0
    assert "lo" in [interface["name"] for interface in reply["network"]]


def test_memory_alone_is_that_of_all_metrics() -> None:
    assert set(reply_of(GROUP.qga_get_memory)) == set(GROUP.qga_get_metrics()["memory"])


def test_counters_are_those_of_the_kernel() -> None:
    before = metrics._cpus()
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    after = metrics._cpus()
    now = {int(name[3:]): int(user) * 10 for name, user, *_ in lines if name[3:].isdecimal()}
    for times, later in zip(before, after):
        assert times["user-ms"] <= now[times["cpu"]] <= later["user-ms"]


def test_processes_by_their_state() -> None:
    with subprocess.Popen(["sh", "-c", "kill -STOP $$"]) as process:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        stopped = metrics._processes()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        zombie = metrics._processes()
    assert stopped["stopped"] >= 1  # those of others come and go
    assert zombie["zombie"] >= 1
    assert stopped["threads"] >= stopped["total"]


def test_pressure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_PRESSURE", str(tmp_path))
    assert metrics._pressure() == {}
    (tmp_path / "io").write_text("some avg10=0.06 avg60=1.23 avg300=99.00 total=422153065\n")
    assert metrics._pressure() == {
        "io": {
            "some": {
                "avg10-percent": 0.06,
                "avg60-percent": 1.23,
                "avg300-percent": 99.0,
                "total-us": 422153065,
            }
        }
    }


def test_a_filesystem_that_does_not_respond_is_listed_without_sizes() -> None:
    mount = mounts.Mount((999, 999), ["/no/such/place"], "ext4", "/dev/gone")
    assert metrics._filesystem(mount) == {
        "device": "/dev/gone",
        "mountpoint": "/no/such/place",
        "type": "ext4",
    }
