"""Guests that suspend or shut down, observed from outside."""

from __future__ import annotations

import pytest

from .agent_socket import AgentSocket, encode
from .vm import Guest

# The last that the kernel says, on the console.
HALTED = "reboot: System halted"


def make_mortal(guest: Guest) -> None:
    """Keep QEMU running when the guest shuts down."""
    guest.qmp("set-action", reboot="reset", shutdown="pause")


def revive(guest: Guest) -> None:
    """Boot the guest again if it is dead."""
    if guest.qmp("query-status")["status"] != "running" or is_halted(guest):
        guest.reset()
    guest.forget_events()


def console(guest: Guest) -> str:
    return guest.console_log.read_text(errors="replace")


def is_halted(guest: Guest) -> bool:
    return console(guest).rstrip().endswith(HALTED)


def ask_for(guest: Guest, command: str, **arguments: object) -> AgentSocket:
    """Send a request that is not answered on success."""
    agent = guest.connect()
    agent.send(encode(command, arguments))
    return agent


def assert_unanswered(agent: AgentSocket) -> None:
    with pytest.raises(TimeoutError):
        agent.read_line(timeout=0.1)
    agent.close()


def boot_id(guest: Guest) -> str:
    return guest.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout
