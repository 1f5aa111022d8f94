"""The doctor's checks of systemd: the agent's unit, and the files that its options come from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from qga.doctor.processes import Process
from qga.findings import Finding, failed, ok, warning
from qga.programs.run import run
from qga.settings.options import Arguments

_BOOTED = "/run/systemd/system"  # sd_booted(3)
_UNIT = "qemu-guest-agent.service"
_VSOCK_UNIT = "qemu-guest-agent-vsock.service"
_PROPERTIES = (
    "LoadState",
    "ActiveState",
    "Result",
    "MainPID",
    "StatusText",
    "FragmentPath",
    "DropInPaths",
    "EnvironmentFiles",
    "TriggeredBy",
)
_TIMEOUT = 10.0  # seconds


class Unit(NamedTuple):
    """The agent's unit.

    properties: the output of `systemctl show`.
    files: the files that define it, the later ones first.
    """

    name: str
    properties: dict[str, str]
    files: list[str]

    @property
    def main_pid(self) -> int:
        return int(self.properties.get("MainPID") or 0)

    @property
    def has_socket(self) -> bool:
        """Whether a socket unit starts it and passes the socket."""
        return ".socket" in self.properties.get("TriggeredBy", "")


def unit_of(arguments: Arguments) -> Unit | None:
    """The unit of an agent with these arguments; None without systemd."""
    if not os.path.isdir(_BOOTED):
        return None
    # The vsock socket starts a unit of its own, so that both channels can be served at once.
    name = _VSOCK_UNIT if arguments.settings.get("method") == "vsock-listen" else _UNIT
    argv = ["systemctl", "show", f"--property={','.join(_PROPERTIES)}", name]
    try:
        lines = run(argv, _TIMEOUT).output.splitlines()
    except OSError:
        return None
    properties: dict[str, str] = {}
    environment_files = []
    for line in lines:
        key, _, value = line.partition("=")
        properties[key] = value
        if key == "EnvironmentFiles":  # one line each: /path (ignore_errors=yes)
            environment_files.append(value.rpartition(" (")[0])
    made_of = [properties.get("FragmentPath", ""), *properties.get("DropInPaths", "").split()]
    return Unit(name, properties, [path for path in (*environment_files, *made_of[::-1]) if path])


def diagnose_unit(unit: Unit | None, agent: Process | None) -> Iterator[Finding]:
    if unit is None:
        yield ok("unit", "systemd is not running")
        return
    properties = unit.properties
    load, active = properties.get("LoadState"), properties.get("ActiveState")
    if active == "active":
        shown = properties.get("StatusText") or "no status"
        yield ok("unit", f"{unit.name} is active: {shown}")
    elif load in ("masked", "not-found"):
        text = f"{unit.name} is {load}"
        advice = f"systemctl unmask {unit.name}" if load == "masked" else "install the package qga"
        if agent is None:
            yield failed("unit", text, advice)
        else:
            advice = f"{advice}, or make sure that something else starts the agent at boot"
            yield warning("unit", f"{text}; pid {agent.pid} was started without it", advice)
    else:
        result = properties.get("Result", "")
        reason = "" if result in ("", "success") else f" ({result})"
        advice = f"systemctl start {unit.name}; journalctl -u {unit.name} shows why it exited"
        yield failed("unit", f"{unit.name} is {active}{reason}", advice)


def line_with(paths: list[str], text: str) -> str | None:
    """The file and number of the first line that contains `text`."""
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                for number, line in enumerate(file, 1):
                    # A comment may show the same option as an example.
                    if text in line and not line.lstrip().startswith("#"):
                        return f"{path}, line {number}"
        except OSError:
            continue
    return None
