"""Freezes a guest for the moment in which a snapshot is taken.

What must stay true: a guest that could not be quiesced as a whole is reported, whatever the reason:
no agent, a hook that failed, a filesystem that cannot be frozen, a freeze that did not last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from qga.client.agent import GuestAgent
from qga.client.commands.freeze import FROZEN
from qga.client.errors import AgentError, CommandError, NotQuiesced, ThawFailed
from qga.client.results import FilesystemInfo, FreezeState
from qga.client.snapshots.record import Freeze

# Types that nobody can write to.
READ_ONLY = {"squashfs", "iso9660", "erofs", "cramfs", "romfs"}

# Types that can be written to, but not frozen; the last three are names of Windows.
NEVER_FROZEN = {"vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk", "hfs", "hfsplus", "udf"} | {
    "FAT",
    "FAT32",
    "exFAT",
}


class Outcome(NamedTuple):
    """How the guest was frozen, and why the snapshot is not consistent nevertheless."""

    freeze: Freeze | None
    problem: str = ""


def start_frozen(
    agent: GuestAgent, start: Callable[[], None], accepted: Collection[str], tolerant: bool
) -> Outcome:
    """Freeze, start the snapshot, and thaw.

    accepted: mount points that need not be frozen. tolerant: start in any case. Otherwise raises
    NotQuiesced, and the snapshot has not started unless the error says so.
    """
    try:
        mounted = filesystems(agent)
        begun = time.monotonic()
        frozen = agent.freeze()
    except AgentError as error:
        if not tolerant:
            raise NotQuiesced(error.reason, error) from error
        start()
        return Outcome(None, str(error))
    started = False
    since = time.monotonic()
    state, problem = FreezeState(FROZEN), ""
    try:
        with frozen:
            state = agent.freeze_state()
            # The agent knows better when it began, but not before it was asked.
            since = max(begun, min(since, time.monotonic() - (state.seconds or 0)))
            problem = unfrozen(frozen.count, state, mounted, accepted)
            if problem and not tolerant:
                raise NotQuiesced(problem)
            start()
            started = True
        problem = problem or mounted_meanwhile(mounted, filesystems(agent), accepted)
        if problem and not tolerant:
            raise NotQuiesced(problem, started=True)
    except (ThawFailed, NotQuiesced):
        raise
    except AgentError as error:
        if not started:
            raise
        problem = str(error)
        if not tolerant:
            raise NotQuiesced(problem, error, started=True) from error
    now = time.monotonic()
    details = state.filesystems, state.left_out, state.hooks
    return Outcome(
        Freeze(round(now - since, 3), round(since - begun, 3), frozen.count, *details), problem
    )


def filesystems(agent: GuestAgent) -> Sequence[FilesystemInfo] | None:
    """What the guest has mounted; None if the agent does not tell."""
    try:
        return agent.filesystems()
    except CommandError:
        return None


def mounted_meanwhile(
    before: Sequence[FilesystemInfo] | None,
    after: Sequence[FilesystemInfo] | None,
    accepted: Collection[str],
) -> str:
    """What was mounted while the others were frozen, and has perhaps been written to."""
    known = {each.name for each in before or ()}
    new = [
        each.mountpoint
        for each in (after if before is not None and after else ())
        if each.name not in known and each.type not in READ_ONLY and each.mountpoint not in accepted
    ]
    return f"mounted while the guest was being frozen: {', '.join(new)}" if new else ""


def unfrozen(
    count: int,
    state: FreezeState,
    mounted: Sequence[FilesystemInfo] | None,
    accepted: Collection[str],
) -> str:
    """Which filesystems are not frozen; "" if all are that have to be."""
    if state.status != FROZEN:
        return f"the freeze did not last: the guest reports '{state.status}' right after it"
    if state.left_out is not None:
        missing = [each for each in state.left_out if each.mountpoint not in accepted]
        reasons = [f"{each.mountpoint} ({each.type}): {each.reason}" for each in missing]
        return f"not frozen: {'; '.join(reasons)}" if reasons else ""
    # QEMU's agent skips what it cannot freeze, and tells only how many it has frozen.
    if mounted is None:
        return "the agent cannot tell whether all filesystems are frozen, without guest-get-fsinfo"
    wanted = {each.name: each.mountpoint for each in mounted if is_to_be_frozen(each, accepted)}
    if count >= len(wanted):
        return ""
    places = ", ".join(wanted.values())
    return f"{places}: the agent froze only {count} of these {len(wanted)}, and cannot tell which"


def is_to_be_frozen(filesystem: FilesystemInfo, accepted: Collection[str]) -> bool:
    """Whether the agent counts it, unless it is missing.

    One that need not be frozen, but can be, is counted, too, and must not replace another one.
    """
    if filesystem.mountpoint in accepted:
        return filesystem.type not in READ_ONLY | NEVER_FROZEN
    return filesystem.type not in READ_ONLY
