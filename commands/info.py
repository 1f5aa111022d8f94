"""The agent's version and commands."""

from __future__ import annotations

import sys

from qga import INTERFACE_VERSION, Caller, CommandGroup, __version__, command
from qga.records import TypedDict
from qga.wire.protocol import Constant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qga.plugin.services import Services
    from qga.policy.policy import Policy

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

    def __init__(self, agent: Services) -> None:
        super().__init__(agent)
        # What may be called depends on nothing else, and clients ask before each command.
        self._infos: dict[tuple[Policy, bool], Constant] = {}

    @command(access="audit", frozen=True)
    def guest_info(self, *, caller: Caller) -> GuestAgentInfo:
        """Report the version of the interface, and which commands this channel may use now.

        The version is that of the QEMU release with this interface.
        """
        key = caller.policy, self.agent.frozen
        if key not in self._infos:
            self._infos[key] = Constant(self._info(*key))
        return self._infos[key]  # type: ignore[return-value]

    def _info(self, policy: Policy, frozen: bool) -> GuestAgentInfo:
        return {
            "version": INTERFACE_VERSION,
            "supported_commands": [
                {
                    "name": entry.name,
                    "enabled": policy.allows(entry, frozen),
                    "success-response": entry.success_response,
                }
                for entry in self.agent.registry
            ],
        }

    @command(access="audit", frozen=True)
    def qga_get_version(self) -> QgaVersion:
        """Report the version of qga, and that of the Python that runs it."""
        return {"version": __version__, "python": sys.version.split()[0]}
