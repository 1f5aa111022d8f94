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
from qga.client.snapshots.record import Freeze
from qga.client.storage import FilesystemInfo, FreezeState

# Types that nobody can write to; the last one is a name of Windows.
READ_ONLY = {"squashfs", "iso9660", "erofs", "cramfs", "romfs", "CDFS"}

# Types that can be frozen; the last two are names of Windows, as Linux cannot freeze its ntfs.
FREEZABLE = {"ext2", "ext3", "ext4", "xfs", "btrfs", "bcachefs", "f2fs", "jfs", "nilfs2"} | {
    "reiserfs",
    "gfs2",
    "NTFS",
    "ReFS",
}

# Seconds. A guest that has just thawed writes what has waited.
LIST_PATIENCE = 60.0


class Outcome(NamedTuple):
    """How the guest was frozen, and why the snapshot is not consistent nevertheless.

    cause: the error behind that, if there is one.
    """

    freeze: Freeze | None
    problem: str = ""
    cause: AgentError | None = None


def start_frozen(
    agent: GuestAgent, start: Callable[[], None], accepted: Collection[str], tolerant: bool
) -> Outcome:
    """Freeze, start the snapshot, and thaw.

    accepted: mount points that need not be frozen. tolerant: start in any case. Otherwise raises
    NotQuiesced if it has not started.
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
    since = time.monotonic()
    state, problem, cause, started = FreezeState(FROZEN), "", None, False
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
    except AgentError as error:
        if not started or isinstance(error, ThawFailed):
            raise
        problem, cause = error.reason, error
    thawed = time.monotonic()
    problem = problem or mounted_meanwhile(agent, mounted or (), accepted)
    details = state.filesystems, state.left_out, state.hooks
    freeze = Freeze(round(thawed - since, 3), round(since - begun, 3), frozen.count, *details)
    return Outcome(freeze, problem, cause)


def filesystems(agent: GuestAgent) -> Sequence[FilesystemInfo] | None:
    """What the guest has mounted; None if the agent does not tell."""
    try:
        return agent.filesystems()
    except CommandError:
        return None


def mounted_meanwhile(
    agent: GuestAgent, before: Sequence[FilesystemInfo], accepted: Collection[str]
) -> str:
    """What was mounted while the others were frozen, and has perhaps been written to."""
    try:
        after = agent.filesystems(timeout=LIST_PATIENCE)
    except AgentError as error:
        return (
            "the agent cannot tell what was mounted while the guest was being frozen: "
            f"{error.reason}"
        )
    known = {each.name for each in before}
    new = [
        each.mountpoint
        for each in after
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
    if mounted is None:
        return "the agent cannot tell whether all filesystems are frozen, without guest-get-fsinfo"
    if state.left_out is not None:
        missing = [each for each in state.left_out if each.mountpoint not in accepted]
        reasons = [f"{each.mountpoint} ({each.type}): {each.reason}" for each in missing]
        return f"not frozen: {'; '.join(reasons)}" if reasons else ""
    # QEMU's agent skips what it cannot freeze, and tells only how many it has frozen.
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
        return filesystem.type in FREEZABLE
    return filesystem.type not in READ_ONLY
