"""Figures of a guest as Prometheus has them, and what follows from two of them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from qga.client import GuestAgent, ProtocolError
from qga.client.conversion import plain
from qga.client.monitoring.metrics import (
    LONGEST_LABEL,
    METRICS,
    MOST_ENTRIES,
    from_metrics,
    from_standard,
)
from qga.client.monitoring.usage import Flow, Level, Monitor, is_disk, total, usage
from qga.client.monitoring.watch import Target, Watcher, name_of, target
from tests.unit.client_peer import Handler, Peer

module: Any = import_module("qga.commands.metrics")


@pytest.fixture
def reply() -> Any:
    """What our agent says of this machine."""
    return json.loads(json.dumps(module.Metrics(None).qga_get_metrics()))


def test_every_metric_comes_with_its_labels(reply: Any) -> None:
    reply["memory"]["oom-kills"] = 3
    stall = {"avg10-percent": 0, "avg60-percent": 0, "avg300-percent": 0, "total-us": 1_500_000}
    reply["pressure"] = {"io": {"some": stall, "full": stall}}
    found = from_metrics(reply)
    labels = {metric.name: len(metric.labels) for metric in METRICS}
    assert {(key[0], len(key) - 1) for key in found} <= set(labels.items())
    places_of_disks = {"filesystem", "disk"}  # there may be none here
    missing = labels.keys() - {key[0] for key in found}
    assert {name.partition("_")[0] for name in missing} <= places_of_disks


def test_the_library_has_every_member_of_the_replies(reply: Any, tmp_path: Path) -> None:
    handlers: dict[str, Handler] = {
        "qga-get-metrics": lambda _: reply,
        "qga-get-memory": lambda _: reply["memory"],
    }
    peer = Peer(tmp_path / "s", handlers)
    try:
        with GuestAgent(peer.address, 30) as agent:
            assert plain(agent.metrics()) == reply
            assert plain(agent.memory()) == reply["memory"]
    finally:
        peer.close()


def test_units_are_base_units(reply: Any) -> None:
    reply["cpus"] = [{"cpu": 3, "user-ms": 54_730, "guest-nice-ms": 70}]
    reply["disks"] = [{"name": "vda", "read-bytes": 512, "busy-ms": 1250}]
    found = from_metrics(reply)
    assert found[("cpu_seconds_total", "3", "user")] == 54.73
    assert found[("cpu_guest_seconds_total", "3", "nice")] == 0.07
    assert found[("disk_read_bytes_total", "vda")] == 512
    assert found[("disk_io_time_seconds_total", "vda")] == 1.25


@pytest.mark.parametrize(
    "change",
    [
        {"uptime-ms": -1},
        {"uptime-ms": 10**400},
        {"uptime-ms": float("nan")},
        {"uptime-ms": float("inf")},
        {"uptime-ms": True},
        {"uptime-ms": "1"},
        {"load": None},
        {"memory": []},
        {"cpus": [1]},
        {"cpus": [{"cpu": "0"}]},
        {"disks": {"name": "vda"}},
        {"network": [{"name": 5}]},
        {"filesystems": [{"device": "a", "mountpoint": "b", "type": "c", "read-only": 1}]},
        {"pressure": {"io": {"some": 5}}},
    ],
)
def test_a_reply_that_makes_no_sense_is_refused(reply: Any, change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        from_metrics({**reply, **change})


def test_text_is_made_valid_and_lists_are_cut(reply: Any) -> None:
    links = [{"name": f"{number} \ud800{'x' * 999}", "rx-bytes": 1} for number in range(5000)]
    found = from_metrics({**reply, "network": links})
    names = [key[1] for key in found if key[0] == "network_receive_bytes_total"]
    assert len(names) == MOST_ENTRIES
    assert names[0].startswith("0 ?xxx")
    assert all(len(name.encode()) == LONGEST_LABEL for name in names)


STANDARD = {
    "guest-get-cpustats": [{"type": "linux", "cpu": 0, "user": 1500, "idle": 20, "guestnice": 10}],
    "guest-get-fsinfo": [
        {
            "name": "vda1",
            "mountpoint": "/",
            "type": "ext4",
            "used-bytes": 30,
            "total-bytes": 90,
            "total-bytes-privileged": 100,
            "disk": [],
        },
        {"name": "sr0", "mountpoint": "/cd", "type": "iso9660", "disk": []},
    ],
    "guest-get-diskstats": [
        {"name": "vda", "major": 254, "minor": 0, "stats": {"read-sectors": 2, "read-ticks": 5}},
        {"name": "vda1", "major": 254, "minor": 1, "stats": {"read-sectors": 2}},
    ],
    "guest-network-get-interfaces": [
        {"name": "eth0", "statistics": {"rx-bytes": 7, "tx-dropped": 1}},
        {"name": "eth0:1"},
    ],
}


def test_the_original_agent_gives_what_it_has() -> None:
    place = ("/dev/vda1", "/", "ext4")
    assert from_standard(STANDARD.get) == {
        ("cpu_seconds_total", "0", "user"): 1.5,
        ("cpu_seconds_total", "0", "idle"): 0.02,
        ("cpu_guest_seconds_total", "0", "nice"): 0.01,
        ("filesystem_size_bytes", *place): 100,
        ("filesystem_used_bytes", *place): 30,
        ("filesystem_avail_bytes", *place): 60,
        ("disk_read_bytes_total", "vda"): 1024,
        ("disk_read_time_seconds_total", "vda"): 0.005,
        ("network_receive_bytes_total", "eth0"): 7,
        ("network_transmit_drop_total", "eth0"): 1,
    }


def test_an_agent_that_may_say_nothing() -> None:
    assert from_standard(lambda _command: None) == {}


BEFORE = {
    ("uptime_seconds",): 100.0,
    ("cpu_seconds_total", "0", "user"): 10.0,
    ("cpu_seconds_total", "0", "idle"): 90.0,
    ("cpu_seconds_total", "0", "iowait"): 0.0,
    ("network_receive_bytes_total", "eth0"): 1000.0,
    ("network_transmit_bytes_total", "eth0"): 0.0,
    ("disk_read_bytes_total", "vda"): 0.0,
    ("disk_written_bytes_total", "vda"): 0.0,
    ("disk_read_bytes_total", "dm-0"): 0.0,
    ("disk_written_bytes_total", "dm-0"): 0.0,
}
NOW = {
    ("uptime_seconds",): 104.0,
    ("cpu_seconds_total", "0", "user"): 11.0,
    ("cpu_seconds_total", "0", "idle"): 92.0,
    ("cpu_seconds_total", "0", "iowait"): 1.0,
    ("network_receive_bytes_total", "eth0"): 9000.0,
    ("network_transmit_bytes_total", "eth0"): 4.0,
    ("disk_read_bytes_total", "vda"): 400.0,
    ("disk_written_bytes_total", "vda"): 40.0,
    ("disk_read_bytes_total", "dm-0"): 400.0,
    ("disk_written_bytes_total", "dm-0"): 40.0,
    ("memory_total_bytes",): 100.0,
    ("memory_available_bytes",): 25.0,
    ("filesystem_used_bytes", "/dev/vda1", "/", "ext4"): 30.0,
    ("filesystem_avail_bytes", "/dev/vda1", "/", "ext4"): 60.0,
    ("processes", "running"): 2.0,
    ("processes", "idle"): 5.0,
}


def test_usage_is_what_was_done_by_the_guests_own_time() -> None:
    seen = usage(BEFORE, NOW, seconds=77)
    assert (seen.cpu, seen.cpus) == (0.25, {"0": 0.25})
    assert seen.network == {"eth0": Flow(2000, 1)}
    assert seen.disks == {"vda": Flow(100, 10), "dm-0": Flow(100, 10)}
    assert total(seen.disks, is_disk) == Flow(100, 10)
    assert seen.memory == Level(75, 100)
    assert seen.filesystems == {"/": Level(30, 90)}
    assert (seen.processes, seen.uptime, seen.swap) == (7, 104, None)


def test_without_uptime_our_clock_counts() -> None:
    before, now = ({**each} for each in (BEFORE, NOW))
    del before[("uptime_seconds",)], now[("uptime_seconds",)]
    assert usage(before, now, seconds=8).network == {"eth0": Flow(1000, 0.5)}


@pytest.mark.parametrize("uptime", [100.0, 100.0 + 2e-14, 100.0 + 1e-4])
def test_in_no_time_there_are_no_rates(uptime: float) -> None:
    seen = usage(BEFORE, {**NOW, ("uptime_seconds",): uptime}, seconds=5)
    assert (seen.network, seen.disks, seen.cpu) == ({}, {}, None)


def test_after_a_reboot_there_are_no_rates_for_once() -> None:
    seen = usage(NOW, BEFORE, seconds=5)
    assert (seen.cpu, seen.network, seen.disks) == (None, {}, {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:/run/web.sock", Target("/run/web.sock", "unix:/run/web.sock")),
        ("web=unix:/run/a=b", Target("web", "unix:/run/a=b")),
        ("unix:/run/a=b", Target("/run/a=b", "unix:/run/a=b")),
    ],
)
def test_guests_named_by_a_user(text: str, expected: Target) -> None:
    assert target(text) == expected


def test_what_is_not_an_address_is_refused() -> None:
    with pytest.raises(ValueError, match="'non:sense' is not the address"):
        target("web=non:sense")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/var/lib/libvirt/qemu/channel/target/domain-3-web-1/org.qemu.guest_agent.0", "web-1"),
        ("/run/libvirt/qemu/channel/3-web-1/org.qemu.guest_agent.0", "web-1"),
        ("/var/run/qemu-server/100.qga", "100"),
    ],
)
def test_the_name_that_is_in_a_path(path: str, name: str) -> None:
    assert name_of(f"unix:{path}") == name


class Held:
    """A handler that waits until it may answer."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.may_answer = threading.Event()
        self.times = 0

    def __call__(self, _arguments: Any) -> Any:
        self.times += 1
        self.asked.set()
        assert self.may_answer.wait(30)
        return module.Metrics(None).qga_get_metrics()


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Held, Target]]:
    handler = Held()
    peer = Peer(tmp_path / "held", {"qga-get-metrics": handler})
    try:
        yield handler, Target("held", peer.address)
    finally:
        handler.may_answer.set()
        peer.close()


def test_a_late_answer_is_waited_for_by_the_next_look_and_not_asked_for_again(
    held: tuple[Held, Target],
) -> None:
    handler, guest = held
    watcher = Watcher(lambda: [guest], timeout=30)
    assert watcher.look(patience=0)[0].error == "no answer within 0 s"
    assert handler.asked.wait(30)
    assert watcher.look(patience=0)[0].readings is None
    handler.may_answer.set()
    assert watcher.look()[0].readings
    assert handler.times == 1


def test_a_late_answer_that_is_older_than_the_timeout_is_asked_for_again(
    held: tuple[Held, Target],
) -> None:
    handler, guest = held
    watcher = Watcher(lambda: [guest], timeout=2)
    watcher.look(patience=0)
    handler.may_answer.set()
    wait(watcher._asked.values(), 30)
    time.sleep(2.1)
    asked = time.monotonic()
    assert watcher.look()[0].at > asked
    assert handler.times == 2


def test_a_silent_guest_keeps_no_other_from_being_seen(held: tuple[Held, Target]) -> None:
    _, silent = held
    gone = Target("gone", "unix:/nonexistent/socket")
    monitor = Monitor(Watcher(lambda: [silent, gone], timeout=30))
    first, second = monitor.look(patience=1)
    assert (first.name, first.usage, first.error) == ("held", None, "no answer within 1 s")
    assert "No such file" in second.error
