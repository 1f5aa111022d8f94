"""The doctor's trial: an agent is made as if it were to start, and what it logs are findings.

What must stay true: it runs the same code as an agent that starts, so that everything which that
would leave out is reported; and it opens no channel, writes nothing and starts no group.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from qga.agent import Agent
from qga.findings import Finding, failed, warning
from qga.plugin import discovery
from qga.plugin.registry import CommandGroup
from qga.service.log import Log
from qga.service.state import FIRST_HANDLE, State
from qga.settings.config import Config

_ADVICE = "fix this, and restart the agent"
_NOWHERE = "/proc"  # a directory that takes no files


def load_groups(config: Config) -> tuple[list[type[CommandGroup]], list[Finding]]:
    """The groups that an agent of this configuration has, and why it would not have others."""
    said = _Said()
    try:
        agent = _Trial(config, Log(said), _NoState(_NOWHERE))
    except Exception as error:
        text = f"the agent does not start: {error}"
        groups = discovery.discover(None, said.texts.append)
        return groups, [*said.findings(), failed("commands", text, _ADVICE)]
    groups = [type(group) for group in agent.registry.groups]
    return groups, [*said.findings(), *_without_groups()]


def _without_groups() -> Iterator[Finding]:
    """Plugins that an agent loads and that add no command."""
    for name, module in list(sys.modules.items()):
        if name.startswith(discovery.PLUGIN_MODULE) and not discovery.groups_in(module):
            text = f"plugin {module.__file__} adds nothing: it defines no subclass of CommandGroup"
            yield warning("plugins", text, _ADVICE)


class _Trial(Agent):
    """An agent that is never started. The doctor itself looks at names and loopholes."""

    def log_fault(self, name: str, error: BaseException) -> None:
        self.log.error(f"{name} is left out: {type(error).__name__}: {error}")

    def _check_names(self, known: list[str]) -> None:
        pass

    def _warn_of_loopholes(self) -> None:
        pass


class _NoState(State):
    """Nothing is frozen, and no handle was ever given."""

    def _load(self) -> int:
        return FIRST_HANDLE


class _Said:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def write(self, _priority: int, text: str, _fields: dict[str, str]) -> None:
        self.texts.append(text)

    def reopen(self) -> None:
        pass

    def findings(self) -> list[Finding]:
        return [warning("plugins", text, _ADVICE) for text in self.texts]
