"""What is known of a snapshot: the result of GuestAgent.snapshot, and the file beside the disks."""

from __future__ import annotations

from typing import NamedTuple, Optional

from qga.client.storage import FreezeParticipant


class Freeze(NamedTuple):
    """How the guest was quiesced.

    seconds: for how long it was frozen. before: seconds that the freeze hooks and the freeze took.
    frozen: how many filesystems were. filesystems: which. left_out: writable ones that were
    not. hooks: the guest's freeze hooks that have run. The last three are None if the agent is not
    qga, which cannot tell.
    """

    seconds: float
    before: float
    frozen: int
    filesystems: Optional[list[FreezeParticipant]] = None
    left_out: Optional[list[FreezeParticipant]] = None
    hooks: Optional[list[str]] = None


class SnapshotDisk(NamedTuple):
    """A disk in a snapshot. `size` is that of the disk in bytes.

    file: the copy, or with `external` the new file that the guest writes to since; `base` is then
    what it wrote to before, which is the snapshot.
    """

    name: str
    file: str
    format: str
    size: int
    base: Optional[str] = None


class SkippedDisk(NamedTuple):
    """A disk that is not in a snapshot, and why."""

    name: str
    reason: str


class Snapshot(NamedTuple):
    """A snapshot of a machine's disks.

    taken: the moment, in seconds since 1970 by the host's clock. consistent: whether everything on
    the disks was frozen; otherwise it is what a power failure leaves, and `problem` is the reason.
    freeze: None if nothing was frozen. seconds: until all was copied.
    """

    guest: str
    taken: float
    external: bool
    consistent: bool
    disks: list[SnapshotDisk]
    skipped: list[SkippedDisk]
    seconds: float
    freeze: Optional[Freeze] = None
    problem: Optional[str] = None
