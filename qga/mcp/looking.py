"""Tools that change nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from qga.client.conversion import plain
from qga.client.errors import AgentError, CommandError, GuestFrozen
from qga.client.monitoring.watch import Target
from qga.client.threads import beside
from qga.mcp.arguments import Argument
from qga.mcp.call import Agent, Call, Stopped
from qga.mcp.reply import LONGEST_ERROR, Data
from qga.mcp.tools import GUEST, Service, tool

MOST_GUESTS = 200
"""Guests that list_guests asks."""

LIST_SECONDS = 5.0
"""Seconds to wait for each of them."""

SOURCE = "guests of this host"

VIEWS: dict[str, Callable[[Agent], Any]] = {
    "system": lambda agent: {
        "host-name": told(agent.hostname),
        "os": told(agent.osinfo),
        "agent-version": told(lambda: agent.info().version),
        "time": told(agent.time),
        "timezone": told(agent.timezone),
        "users": told(agent.users),
        "processors": told(agent.processors),
        "load": told(agent.load),
    },
    "network": lambda agent: {"interfaces": agent.interfaces(), "routes": told(agent.routes)},
    "filesystems": lambda agent: agent.filesystems(),
    "disks": lambda agent: {"disks": agent.disks(), "counters": told(agent.disk_stats)},
    "metrics": lambda agent: agent.metrics(),
    "freeze": lambda agent: agent.freeze_state(),
}


@tool()
def list_guests(service: Service, call: Call) -> Data:
    """List the guests that you may name, and whether the agent in each of them answers."""
    targets = service.guests.find()
    asked = [beside(partial(state_of, service, target)) for target in targets[:MOST_GUESTS]]
    states = [answer.result() for answer in asked]
    return Data(SOURCE, [*states, *({"guest": target.name} for target in targets[MOST_GUESTS:])])


def state_of(service: Service, target: Target) -> dict[str, Any]:
    try:
        with service.guests.agent_of(target, Call(LIST_SECONDS)) as agent:
            system = told(lambda: agent.osinfo().pretty_name)
            return {"guest": target.name, "answers": True, "os": system}
    except (AgentError, Stopped, ValueError) as error:
        reason = str(error)[:LONGEST_ERROR]
        return {"guest": target.name, "answers": False, "reason": reason}


@tool(
    GUEST,
    Argument("about", "string", "what to look at", True, choices=tuple(VIEWS)),
)
def look(service: Service, call: Call, guest: str, about: str) -> Data:
    """Look at a guest: its operating system, users and load ("system"), its network, filesystems,
    disks, metrics (processors, memory, pressure, traffic; needs qga in the guest), or whether its
    filesystems are frozen ("freeze"). Nothing is changed."""
    with service.guests.agent(guest, call) as agent:
        return Data(f"the guest '{guest}'", shown(VIEWS[about](agent)))


def told(question: Callable[[], Any]) -> Any:
    """The result of a request; None if the guest cannot answer it."""
    try:
        return question()
    except GuestFrozen:
        raise
    except CommandError:
        return None


def shown(value: Any) -> Any:
    """Convert a result of the library to values of JSON."""
    if isinstance(value, dict):
        return {name: shown(each) for name, each in value.items() if each is not None}
    return plain(value)
