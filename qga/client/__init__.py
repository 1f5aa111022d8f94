"""The host's side: talk to the agent of a guest.

    from qga.client import GuestAgent

    with GuestAgent("unix:/var/lib/libvirt/qemu/channel/target/guest.org.qemu.guest_agent.0") as agent:
        agent.ping()
        agent.exec(["uname", "-a"]).stdout
        agent.call("guest-file-open", path="/etc/hosts", mode="r")

Only the standard library is needed for this; `qgactl`, on top of it, needs typer and rich.
"""  # noqa: E501 - the path is one that libvirt makes

from qga.client.agent import GuestAgent
from qga.client.errors import (
    AgentError,
    AgentTimeout,
    CommandError,
    CommandNotFound,
    ConnectError,
    ProtocolError,
)
from qga.client.results import AgentInfo, CommandInfo, ExecResult, OSInfo, Timezone

__all__ = [
    "AgentError",
    "AgentInfo",
    "AgentTimeout",
    "CommandError",
    "CommandInfo",
    "CommandNotFound",
    "ConnectError",
    "ExecResult",
    "GuestAgent",
    "OSInfo",
    "ProtocolError",
    "Timezone",
]
