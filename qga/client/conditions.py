"""Checks of the conditions of `wait_for`, by qga-get-readiness or by commands that all agents have.

A check raises Never if waiting is useless, and an AgentError if it fails.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Optional

from qga.client.errors import (
    CommandError,
    CommandNotFound,
    CopyError,
    ProgramNotStarted,
    shortened,
)
from qga.client.readiness import Readiness
from qga.wording import counted

if TYPE_CHECKING:
    from qga.client.agent import GuestAgent

# Seconds for a program such as systemctl in the guest.
PROGRAM_PATIENCE = 10.0

# Bytes of the files of cloud-init and of the kernel.
MOST_BYTES = 4 * 1024 * 1024

# Characters of the output of systemctl.
LONGEST_WORD = 100

NO_FILE = "No such file or directory"
LISTENING = b"0A"  # TCP_LISTEN of the kernel
HEXADECIMAL_PORT = re.compile(rb"[0-9A-Fa-f]{1,4}")


class Seen(NamedTuple):
    met: bool
    detail: str


class Never(Exception):
    """Waiting is useless; the text gives the reason."""


Check = Callable[["GuestAgent", str, Optional[Readiness]], Seen]
"""Takes the argument of the condition and the reply of qga-get-readiness, or None without it."""


def _agent(_agent: GuestAgent, _argument: str, _state: Readiness | None) -> Seen:
    return Seen(True, "it answers")


def _boot(agent: GuestAgent, _argument: str, state: Readiness | None) -> Seen:
    if state is None:
        word = _systemctl(agent, "is-system-running")
        if word in ("offline", "unknown"):
            raise Never("systemd does not run in this guest")
        return Seen(word not in ("initializing", "starting", ""), word)
    boot = state.boot
    if boot.finished is None and not boot.reason:
        reason = f"{boot.manager} does not report the end of the boot; wait for a port or a file"
        raise Never(reason)
    jobs = "" if boot.jobs is None or boot.finished else f", {counted(boot.jobs, 'job')} left"
    failed = ", ".join(state.failed_units or ())
    detail = (boot.reason or boot.state) + jobs + (f", failed: {failed}" if failed else "")
    return Seen(bool(boot.finished), detail)


def _unit(agent: GuestAgent, name: str, state: Readiness | None) -> Seen:
    if state is None:
        word = _systemctl(agent, "is-active", "--", name)
        return Seen(word == "active", word)
    unit = next((each for each in state.units if each.name == name), None)
    if unit is None:
        raise Never("this guest has no units: systemd does not run")
    unusual = "" if unit.load_state in ("", "loaded") else f", {unit.load_state}"
    return Seen(unit.state == "active", f"{unit.state} ({unit.sub_state}){unusual}")


def _systemctl(agent: GuestAgent, *words: str) -> str:
    """The state that systemctl prints; its exit status is ignored."""
    try:
        result = agent.exec(["systemctl", *words], timeout=PROGRAM_PATIENCE)
    except ProgramNotStarted as error:
        raise Never(f"this agent cannot tell without systemctl: {error.reason}") from None
    return result.stdout.decode(errors="replace").strip()[:LONGEST_WORD]


def _address(agent: GuestAgent, _argument: str, state: Readiness | None) -> Seen:
    if state is not None:
        usable = [f"{each.address} on {each.interface}" for each in state.addresses]
    else:
        usable = _addresses(agent)
    return Seen(bool(usable), ", ".join(usable) or "there is none, or only link-local ones")


def _addresses(agent: GuestAgent) -> list[str]:
    return [
        f"{address.ip_address} on {interface.name}"
        for interface in agent.interfaces()
        for address in interface.ip_addresses
        if not _is_of_the_link(address.ip_address.lower())
    ]


def _is_of_the_link(address: str) -> bool:
    return address == "::1" or address.startswith(("127.", "169.254.", "fe8", "fe9", "fea", "feb"))


def _port(agent: GuestAgent, argument: str, state: Readiness | None) -> Seen:
    listens = int(argument) in (_listening(agent) if state is None else state.listening)
    return Seen(listens, "a program listens" if listens else "no program listens")


def _listening(agent: GuestAgent) -> set[int]:
    found: set[int] = set()
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        content = _content(agent, path) or b""
        rows = [line.split(None, 4) for line in content.splitlines()[1:]]
        local = (row[1].rpartition(b":")[2] for row in rows if row[3:4] == [LISTENING])
        found.update(int(digits, 16) for digits in local if HEXADECIMAL_PORT.fullmatch(digits))
    return found


def _cloud_init(agent: GuestAgent, _argument: str, state: Readiness | None) -> Seen:
    if state is None:
        word, errors = _cloud_init_files(agent)
    elif state.cloud_init is None:
        word, errors = "", ()
    else:
        word, errors = state.cloud_init.state, state.cloud_init.errors
    if not word:
        raise Never("it is not installed in this guest")
    if word == "error":
        raise Never(f"it has failed: {'; '.join(errors)}")
    return Seen(word in ("done", "disabled"), word)


def _cloud_init_files(agent: GuestAgent) -> tuple[str, tuple[str, ...]]:
    """The state and errors of cloud-init from its files, as in qga-get-readiness."""
    directory = "/run/cloud-init"
    result = _content(agent, f"{directory}/result.json")
    if result is not None:
        errors = _errors(result)
        return ("error", errors) if errors else ("done", ())
    for name, word in (("disabled", "disabled"), ("status.json", "running")):
        if _exists(agent, f"{directory}/{name}"):
            return word, ()
    return ("not-started" if _exists(agent, "/usr/bin/cloud-init") else ""), ()


def _errors(result: bytes) -> tuple[str, ...]:
    try:
        errors = json.loads(result)["v1"]["errors"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ("its result cannot be read",)
    return (shortened("; ".join(map(str, errors))),) if errors and isinstance(errors, list) else ()


def _file(agent: GuestAgent, argument: str, _state: Readiness | None) -> Seen:
    try:
        found = _exists(agent, argument)
    except CommandNotFound:
        raise
    except CommandError as error:
        raise Never(error.reason) from None
    return Seen(found, "it exists" if found else "it does not exist")


def _exists(agent: GuestAgent, path: str) -> bool:
    try:
        agent.file_close(agent.file_open(path))
    except CommandNotFound:
        raise
    except CommandError as error:
        if NO_FILE in error.desc:
            return False
        if "Is a directory" not in error.desc:
            raise
    return True


def _content(agent: GuestAgent, path: str) -> bytes | None:
    """The content of a file; None if it does not exist."""
    try:
        return agent.read_file(path, limit=MOST_BYTES)
    except CopyError as error:
        raise Never(error.reason) from None
    except CommandNotFound:
        raise
    except CommandError as error:
        if NO_FILE in error.desc:
            return None
        raise


CHECKS: dict[str, Check] = {
    "agent": _agent,
    "boot": _boot,
    "cloud-init": _cloud_init,
    "address": _address,
    "unit": _unit,
    "port": _port,
    "file": _file,
}
