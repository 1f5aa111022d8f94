"""Where a disk sits, by its folder in sysfs, for machines that no test guest is."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

block: Any = import_module("qga.commands._block")


def address(monkeypatch: pytest.MonkeyPatch, folder: str) -> dict[str, Any]:
    monkeypatch.setattr(block, "sys_path", lambda name: f"/sys/devices/{folder}/block/{name}")
    found: dict[str, Any] = block.disk_address("nowhere")
    return found


def test_disk_of_a_mainframe(monkeypatch: pytest.MonkeyPatch) -> None:
    assert address(monkeypatch, "css0/0.1.00a0/0.2.0f01/virtio3") == {
        "pci-controller": {"domain": -1, "bus": -1, "slot": -1, "function": -1},
        "bus-type": "virtio",
        "bus": 0,
        "target": 0,
        "unit": 0,
        "dev": "/dev/nowhere",
        "ccw-address": {"cssid": 0, "ssid": 1, "subchno": 0xA0, "devno": 0xF01},
    }


def test_unit_beyond_255(monkeypatch: pytest.MonkeyPatch) -> None:
    found = address(monkeypatch, "pci0000:00/0000:00:05.0/virtio2/host7/target7:0:3/7:0:3:16684")
    assert (found["bus-type"], found["bus"], found["target"], found["unit"]) == ("scsi", 0, 3, 300)
