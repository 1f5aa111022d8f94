"""qga-resync: the clock and the random pool, with a clock that stands in for this machine's."""

from __future__ import annotations

import time
from base64 import b64encode
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qga import QgaError

clock: Any = import_module("qga.commands._host_clock")
pool: Any = import_module("qga.commands._random_pool")
restore: Any = import_module("qga.commands.restore")
steps: Any = import_module("qga.commands._steps")

SECOND = 10**9
NOW = 1_800_000_000 * SECOND


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where PTP clocks are; there are none."""
    monkeypatch.setattr(clock, "_PTP", str(tmp_path / "ptp"))
    monkeypatch.setattr(clock, "_DEV", str(tmp_path))
    return tmp_path


@pytest.fixture
def guests_clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock of a guest in the place of this machine's; `now`, and the IDs of clocks read."""
    state = SimpleNamespace(now=NOW, read=[])

    def gettime(clock_id: int) -> int:
        state.read.append(clock_id)
        return NOW + 90 * SECOND

    def settime(clock_id: int, now: int) -> None:
        assert clock_id == time.CLOCK_REALTIME
        state.now = now

    names = {
        "time_ns": lambda: state.now,
        "monotonic": lambda: 100.0,
        "clock_gettime_ns": gettime,
        "clock_settime_ns": settime,
        "CLOCK_REALTIME": time.CLOCK_REALTIME,
    }
    monkeypatch.setattr(clock, "time", SimpleNamespace(**names))
    return state


def add_ptp(folder: Path, number: int, name: str) -> None:
    (folder / f"ptp/ptp{number}").mkdir(parents=True)
    (folder / f"ptp/ptp{number}/clock_name").write_text(f"{name}\n")
    (folder / f"ptp{number}").touch()


def test_a_clock_that_is_off_is_set(guests_clock: SimpleNamespace) -> None:
    text = clock.follow_host(NOW + 7 * SECOND, 99.5)
    assert guests_clock.now == NOW + 7 * SECOND + SECOND // 2
    assert text == "the clock was 7.500 s behind the host's (time of the request) and was set"


@pytest.mark.parametrize("offset", [-SECOND, 0, 999_999_999, SECOND])
def test_a_clock_that_is_right_is_left(guests_clock: SimpleNamespace, offset: int) -> None:
    assert clock.follow_host(NOW + offset, 100.0).endswith("and was left as it is")
    assert guests_clock.now == NOW


def test_the_clock_of_kvm_comes_first(folder: Path, guests_clock: SimpleNamespace) -> None:
    add_ptp(folder, 0, "ptp_of_a_network_card")
    add_ptp(folder, 1, "KVM virtual PTP")
    text = clock.follow_host(NOW, 100.0)
    assert guests_clock.now == NOW + 90 * SECOND
    assert text == f"the clock was 90.000 s behind the host's ({folder}/ptp1) and was set"
    # FD_TO_CLOCKID of clock_getres(2).
    (number,) = guests_clock.read
    assert number < 0
    assert number & 7 == 3


def test_a_clock_of_kvm_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_ptp(folder, 0, "KVM virtual PTP")
    monkeypatch.setattr(clock.time, "clock_settime_ns", pytest.fail)
    # The kernel refuses a file that is not a clock.
    assert "(time of the request)" in clock.follow_host(time.time_ns(), time.monotonic())
    with pytest.raises(QgaError, match="ptp0: Invalid argument; and the request has no time"):
        clock.follow_host(None, 0.0)


def test_no_time_at_all() -> None:
    assert steps.step("clock", lambda: clock.follow_host(None, 0.0)) == {
        "name": "clock",
        "result": "not-applicable",
        "text": "the guest has no PTP clock of KVM, and the request has no time",
    }


@pytest.mark.parametrize("size", [0, 1, 15, 513])
def test_too_little_or_too_much_entropy(size: int) -> None:
    with pytest.raises(
        QgaError, match=f"entropy has {size} bytes?; give at least 16 and at most 512"
    ):
        pool.decode_entropy(_base64(bytes(size)))


def test_entropy_that_is_enough() -> None:
    assert pool.decode_entropy(_base64(bytes(16))) == bytes(16)
    assert pool.decode_entropy(_base64(bytes(512))) == bytes(512)
    assert pool.decode_entropy(None) is None


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"time": -1}, "invalid time"),
        ({"time": 2**63 - 1}, "invalid time"),
        ({"entropy": "AAAA"}, "entropy has 3 bytes"),
        ({"entropy": "!"}, "Base64"),
    ],
)
def test_bad_arguments_of_resync(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(QgaError, match=reason):
        restore.Restore(None).qga_resync(**given)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "nothing to change: give hostname, machine-id or ssh-host-keys"),
        ({"entropy": "A" * 24}, "nothing to change"),
        ({"hostname": "a/b", "machine_id": True}, "'a/b' is not a host name"),
        ({"machine_id": True, "entropy": "AAAA"}, "entropy has 3 bytes"),
    ],
)
def test_bad_arguments_of_set_identity(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(QgaError, match=reason):
        restore.Restore(None).qga_set_identity(**given)
