"""The guests that calls may name, and the connections to their agents.

QEMU accepts one connection to a port at a time. So the calls to one guest share a connection, on
which their requests take turns. It is closed after the last of these calls, so that other clients
can connect.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from difflib import get_close_matches

from qga.client.monitoring.watch import Target
from qga.mcp.arguments import WrongArguments
from qga.mcp.call import Agent, Call

MOST_CALLS = 8
"""Simultaneous calls to one guest."""

MOST_NAMED = 50
"""Guests listed in an error."""


class Guests:
    """find: returns the guests that calls may name. timeout: seconds for a reply."""

    def __init__(self, find: Callable[[], list[Target]], timeout: float) -> None:
        self.find = find
        self._timeout = timeout
        self._users: dict[Target, int] = {}
        self._agents: dict[Target, Agent] = {}
        self._mutex = threading.Lock()

    def agent(self, name: str, call: Call) -> AbstractContextManager[Agent]:
        """A context with the connected agent of a guest. Raises WrongArguments if there is none."""
        return self.agent_of(self.target(name), call)

    @contextmanager
    def agent_of(self, target: Target, call: Call) -> Iterator[Agent]:
        agent = self._taken(target)
        try:
            with agent.serving(call):
                agent.sync()
                yield agent
        finally:
            self._give(target)

    def target(self, name: str) -> Target:
        targets = {target.name: target for target in self.find()}
        if name not in targets:
            similar = get_close_matches(name, targets)
            names = ", ".join(sorted(targets)[:MOST_NAMED]) or "none"
            advice = f"did you mean '{similar[0]}'?" if similar else f"the guests are: {names}"
            raise WrongArguments(f"no guest '{name}'; {advice}")
        return targets[name]

    def _taken(self, target: Target) -> Agent:
        with self._mutex:
            users = self._users.get(target, 0)
            if users >= MOST_CALLS:
                raise WrongArguments(
                    f"{MOST_CALLS} calls are under way for this guest; wait for one to end"
                )
            self._users[target] = users + 1
            if not users:
                self._agents[target] = Agent(target, self._timeout)
            return self._agents[target]

    def _give(self, target: Target) -> None:
        with self._mutex:
            self._users[target] -= 1
            agent = None if self._users[target] else self._agents.pop(target)
        if agent is not None:
            agent.close()
