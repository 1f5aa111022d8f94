"""The agent's version and commands."""

from __future__ import annotations

import sys

from qga import INTERFACE_VERSION, Caller, CommandGroup, __version__, command
from qga.records import TypedDict

GuestAgentCommandInfo = TypedDict(
    "GuestAgentCommandInfo", {"name": str, "enabled": bool, "success-response": bool}
)


class GuestAgentInfo(TypedDict):
    version: str
    supported_commands: list[GuestAgentCommandInfo]


class QgaVersion(TypedDict):
    version: str
    python: str


class Info(CommandGroup):
    """Information about the agent."""

    @command(access="audit", frozen=True)
    def guest_info(self, *, caller: Caller) -> GuestAgentInfo:
        """Report the version of the interface, and which commands this channel may use now.

        The version is that of the QEMU release with this interface.
        """
        allows, frozen = caller.policy.allows, self.agent.frozen
        return {
            "version": INTERFACE_VERSION,
            "supported_commands": [
                {
                    "name": entry.name,
                    "enabled": allows(entry, frozen),
                    "success-response": entry.success_response,
                }
                for entry in self.agent.registry
            ],
        }

    @command(access="audit", frozen=True)
    def qga_get_version(self) -> QgaVersion:
        """Report the version of qga, and that of the Python that runs it."""
        return {"version": __version__, "python": sys.version.split()[0]}
