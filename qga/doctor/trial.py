"""The doctor's trial start: an agent is created but not started, and its log becomes findings.

What must stay true: it runs the same code as a starting agent, so that everything which that would
skip is reported. It opens no channel, writes nothing and starts no group.
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
    """The groups of an agent with this configuration, and findings about those it would skip."""
    messages = _Messages()
    try:
        agent = _Trial(config, Log(messages), _NoState(_NOWHERE))
    except Exception as error:
        text = f"the agent does not start: {error}"
        groups = discovery.discover(None, messages.texts.append)
        return groups, [*messages.findings(), failed("commands", text, _ADVICE)]
    standard = discovery.standard_groups()
    loaded = [type(group) for group in agent.registry.groups]
    groups = [*standard, *(group for group in loaded if group not in standard)]
    return groups, [*messages.findings(), *_without_groups()]


def _without_groups() -> Iterator[Finding]:
    """Plugins that are loaded but add no command."""
    for name, module in list(sys.modules.items()):
        if name.startswith(discovery.PLUGIN_MODULE) and not discovery.groups_in(module):
            text = (
                f"plugin {module.__file__} adds no commands: it defines no subclass of CommandGroup"
            )
            yield warning("plugins", text, _ADVICE)


class _Trial(Agent):
    """An agent that is never started. The doctor checks names and loopholes separately."""

    def log_fault(self, name: str, error: BaseException, *, is_secret: bool = False) -> None:
        self.log.error(f"{name} is left out: {type(error).__name__}: {error}")

    def _check_names(self, known: list[str]) -> None:
        pass

    def _warn_of_loopholes(self) -> None:
        pass


class _NoState(State):
    """State that is neither read nor written."""

    def _load(self) -> int:
        return FIRST_HANDLE


class _Messages:
    """A log sink that keeps the messages."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def write(self, _priority: int, text: str, _fields: dict[str, str]) -> None:
        self.texts.append(text)

    def reopen(self) -> None:
        pass

    def findings(self) -> list[Finding]:
        return [warning("plugins", text, _ADVICE) for text in self.texts]
