"""Tools that freeze and thaw filesystems.

What must stay true: filesystems are thawed even if the client forgets it, after the time that the
call asked for, and when this server exits.
"""

from __future__ import annotations

from threading import Timer

from qga.mcp.arguments import Argument
from qga.mcp.call import Call
from qga.mcp.reply import Note
from qga.mcp.tools import GUEST, Service, tool
from qga.wording import counted

FREEZE_SECONDS, LONGEST_FREEZE = 30.0, 600.0
"""Seconds after which filesystems are thawed: by default, and at most."""

PATIENCE = 120.0
"""Seconds for the freeze itself, which waits for hooks and for dirty pages to be written."""

MANY_PATHS = Argument("mountpoints", "strings", "the filesystems to freeze (default: all)")


@tool(
    GUEST,
    MANY_PATHS,
    Argument(
        "seconds",
        "number",
        "after this time they are thawed if nobody else has (default: 30)",
        least=1,
        most=LONGEST_FREEZE,
    ),
    needs=("freeze",),
    seconds=PATIENCE,
    reads_only=False,
)
def freeze_filesystems(
    service: Service,
    call: Call,
    guest: str,
    mountpoints: list[str] | None = None,
    seconds: float = FREEZE_SECONDS,
) -> Note:
    """Freeze the filesystems of a guest, so that a snapshot of its disks is consistent. Thaw them
    soon: while they are frozen, programs of the guest hang when they write."""
    with service.guests.agent(guest, call) as agent:
        state = agent.freeze(mountpoints)
        try:
            thaw_after(seconds, service, guest)
        except BaseException:
            state.thaw()
            raise
    frozen = counted(state.count, "filesystem is", "filesystems are")
    return Note(f"{frozen} frozen, for at most {seconds:g} s. Thaw as soon as possible.")


def thaw_after(seconds: float, service: Service, guest: str) -> None:
    timer = Timer(seconds, lambda: thaw_late(service, guest))
    timer.daemon = True
    timer.start()
    replaced = service.frozen.pop(guest, None)
    if replaced is not None:
        replaced.cancel()
    service.frozen[guest] = timer


@tool(GUEST, needs=("freeze",), seconds=PATIENCE, reads_only=False)
def thaw_filesystems(service: Service, call: Call, guest: str) -> Note:
    """Thaw the filesystems of a guest. None thawed after a freeze means that something else has
    thawed them before: a snapshot made meanwhile may not be consistent."""
    count = thaw(service, guest, call)
    return Note(f"{counted(count, 'filesystem was', 'filesystems were')} thawed.")


def thaw(service: Service, guest: str, call: Call) -> int:
    with service.guests.agent(guest, call) as agent:
        count = agent.thaw()
    timer = service.frozen.pop(guest, None)
    if timer is not None:
        timer.cancel()
    return count


def thaw_late(service: Service, guest: str) -> None:
    """Thaw the filesystems that nobody has thawed in time."""
    try:
        count = thaw(service, guest, Call(PATIENCE))
        text = f"{guest}: {counted(count, 'filesystem was', 'filesystems were')} thawed late"
    except Exception as error:  # none may keep other guests frozen
        text = f"{guest}: its filesystems may still be frozen: {error}"
    service.trail.note(text)


def thaw_all(service: Service) -> None:
    """Thaw the filesystems of all guests before the server exits."""
    for guest, timer in [*service.frozen.items()]:
        timer.cancel()
        thaw_late(service, guest)
