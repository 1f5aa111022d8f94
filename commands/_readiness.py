"""The state of the boot according to systemd, cloud-init and the kernel."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from qga import QgaError
from qga.programs.run import run

from ._sysfs import understood
from .readiness import MAX_FAILED

if TYPE_CHECKING:
    from .readiness import QgaBoot, QgaCloudInit, QgaUnit

_SYSTEMD_RUNS = "/run/systemd/system"  # sd_booted(3)
_OPENRC = "/run/openrc"
_PATIENCE = 4.0  # seconds for systemctl
_NOT_FINISHED = ("initializing", "starting")

_CLOUD_INIT = "/run/cloud-init"
_CLOUD_INIT_PROGRAM = "/usr/bin/cloud-init"
_CLOUD_INIT_UNITS = tuple(
    f"cloud-{stage}.service"
    for stage in ("init-local", "init-main", "init-network", "init", "config", "final")
)
_MAX_FILE = 256 * 1024
_MOST_ERRORS = 20
_MAX_ERROR = 500  # characters

_TCP = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTEN = b"0A"  # TCP_LISTEN of <net/tcp_states.h>


def boot() -> tuple[QgaBoot, list[str] | None]:
    """The state of the boot, and the failed units; None if there is no systemd."""
    if not os.path.isdir(_SYSTEMD_RUNS):
        return {"manager": "openrc" if os.path.isdir(_OPENRC) else _name_of_init()}, None
    try:
        state = dict(_properties("--property=SystemState,NJobs,NFailedUnits")[0])
    except QgaError as error:
        return {"manager": "systemd", "reason": str(error)}, None
    result: QgaBoot = {"manager": "systemd"}
    word, jobs = state.get("SystemState", ""), state.get("NJobs", "")
    if word:
        result["state"] = word
        result["finished"] = word not in _NOT_FINISHED
    if jobs.isdecimal():
        result["jobs"] = int(jobs)
    return result, [] if state.get("NFailedUnits") == "0" else _failed_units()


def units(names: list[str]) -> list[QgaUnit] | None:
    """The states of these units, in their order; None without systemd. Raises QgaError."""
    if not os.path.isdir(_SYSTEMD_RUNS):
        return None
    found = _properties("--property=ActiveState,SubState,LoadState", "--", *names)
    return [
        {
            "name": name,
            "state": each.get("ActiveState", ""),
            "sub-state": each.get("SubState", ""),
            "load-state": each.get("LoadState", ""),
        }
        for name, each in zip(names, found)
    ]


def _properties(*words: str) -> list[dict[str, str]]:
    """The output of `systemctl show`, one dictionary for each block."""
    blocks = _systemctl("show", *words).strip("\n").split("\n\n")
    return [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks
    ]


def _failed_units() -> list[str] | None:
    options = ("--state=failed", "--plain", "--no-legend", "--no-pager", "--full")
    try:
        lines = _systemctl("list-units", *options).splitlines()
    except QgaError:
        return None
    return [line.split()[0] for line in lines[:MAX_FAILED] if line.strip()]


def _systemctl(*words: str) -> str:
    try:
        ended = run(["systemctl", *words], _PATIENCE, only_looks=True)
    except TimeoutError:
        raise QgaError(f"systemctl did not answer within {_PATIENCE:.0f} s") from None
    except OSError as error:
        raise QgaError(f"systemctl: {error.strerror}") from error
    if ended.status:
        raise QgaError(f"systemctl: {' '.join(ended.output.split())[:_MAX_ERROR]}")
    return ended.output


def _name_of_init() -> str:
    with open("/proc/1/comm", encoding="utf-8", errors="replace") as file:
        return file.read().strip()


def cloud_init(failed_units: list[str]) -> QgaCloudInit | None:
    """The state of cloud-init; None if it is not installed (its docs: "Reported status").

    A stage that has crashed may never write a result, and counts as an error as in cloud-init's own
    `status`.
    """
    result = _read_json("result.json")
    if result is not None:
        errors = [str(each)[:_MAX_ERROR] for each in _list(result.get("errors"))[:_MOST_ERRORS]]
        return {"state": "error", "errors": errors} if errors else {"state": "done"}
    if os.path.exists(f"{_CLOUD_INIT}/disabled"):
        return {"state": "disabled"}
    crashed = [f"{unit} has failed" for unit in _CLOUD_INIT_UNITS if unit in failed_units]
    if crashed:
        return {"state": "error", "errors": crashed}
    status = _read_json("status.json")
    if status is not None:
        stage = status.get("stage")
        return (
            {"state": "running", "stage": stage} if isinstance(stage, str) else {"state": "running"}
        )
    if os.path.isdir(_CLOUD_INIT) or os.path.exists(_CLOUD_INIT_PROGRAM):
        return {"state": "not-started"}
    return None


def _read_json(name: str) -> dict[str, Any] | None:
    """The member `v1` of a file of cloud-init; None if it is missing or incomplete."""
    try:
        with open(f"{_CLOUD_INIT}/{name}", "rb") as file:
            content = json.loads(file.read(_MAX_FILE))
    except (OSError, ValueError, RecursionError):
        return None
    version = content.get("v1") if isinstance(content, dict) else None
    return version if isinstance(version, dict) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def listening_ports() -> set[int]:
    """The TCP ports on which a program listens, on any address."""
    found: set[int] = set()
    for path in _TCP:
        try:
            with open(path, "rb") as file:
                lines = file.read().splitlines()[1:]
        except OSError:  # IPv6 is off
            continue
        found.update(filter(None, understood(_listening_port, lines)))
    return found


def _listening_port(line: bytes) -> int | None:
    """None for a socket that does not listen. Raises ValueError."""
    _number, local, _remote, state, _ = line.split(None, 4)
    return int(local.rpartition(b":")[2], 16) if state == _LISTEN else None
