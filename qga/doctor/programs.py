"""The doctor's checks of [exec]: its user exists, and this guest can enforce its limits."""

from __future__ import annotations

from collections.abc import Iterator

from qga.findings import Finding, failed, ok, warning
from qga.programs import cgroup
from qga.programs.accounts import find_user
from qga.programs.limits import Limits
from qga.settings.config import ChannelConfig

_ENABLE = "boot this guest with cgroup v2 (systemd.unified_cgroup_hierarchy=1)"


def diagnose_programs(channel: ChannelConfig) -> Iterator[Finding]:
    where = "[exec]" if channel.name == "main" else f"[exec {channel.name}]"
    if channel.exec_user:
        yield from _user(channel.exec_user, where)
    bounds = [name for name in Limits._fields if getattr(channel, f"exec_{name}") is not None]
    if bounds or channel.exec_timeout is not None:
        yield from _bounds(bounds, where)


def _user(user: str, where: str) -> Iterator[Finding]:
    try:
        find_user(user)
    except KeyError:
        text = f"{where} user: the user '{user}' is unknown, so no program can be started"
        yield failed("programs", text, f"create the user, or name another one in {where} user")


def _bounds(bounds: list[str], where: str) -> Iterator[Finding]:
    offered = cgroup.controllers()
    if "cpu" in bounds and "cpu" not in offered:
        text = f"{where} cpu: this guest cannot limit it, so no program can be started"
        yield failed("programs", text, f"{_ENABLE}, or remove the key")
    elif {"memory", "pids"} <= offered:
        yield ok("programs", f"{where}: each program is limited by its own cgroup")
    else:
        text = (
            f"{where}: limits apply to each process, and a process may survive its program: "
            "this guest has no cgroup v2 with the controllers memory and pids"
        )
        yield warning("programs", text, _ENABLE)
