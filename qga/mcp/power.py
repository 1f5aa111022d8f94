"""Tools that shut a guest down."""

from __future__ import annotations

from typing import Literal

from qga.mcp.arguments import Argument
from qga.mcp.call import Call
from qga.mcp.reply import Note
from qga.mcp.tools import GUEST, Service, tool

MODES = {"powerdown": "shut down", "reboot": "reboot", "halt": "halt"}


@tool(
    GUEST,
    Argument("mode", "string", "what the guest is to do", True, choices=tuple(MODES)),
    needs=("power",),
    reads_only=False,
)
def shut_down(
    service: Service, call: Call, guest: str, mode: Literal["powerdown", "reboot", "halt"]
) -> Note:
    """Shut a guest down, reboot or halt it, cleanly. Only the host can start it again."""
    with service.guests.agent(guest, call) as agent:
        agent.shutdown(mode)
    return Note(f"The guest was asked to {MODES[mode]}, and has accepted it.")
