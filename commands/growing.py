"""Growing a filesystem after the host has made its disk larger.

What must stay true: nothing is changed unless every step of the plan can be expected to succeed,
and each step alone leaves the data as they are. After a failure the same call goes on where it
stopped.
"""

from __future__ import annotations

from _thread import allocate_lock
from typing import TYPE_CHECKING, Literal, Optional

from qga import CommandGroup, QgaError, UInt64, command, stop_if_given_up
from qga.records import TypedDict

from ._freezer import is_frozen
from ._grow_filesystems import Filesystem, open_filesystem
from ._grow_plan import Plan, Step

if TYPE_CHECKING:
    from qga.plugin.services import Services

QgaGrowthLayer = Literal["partition", "crypt", "physical-volume", "logical-volume", "filesystem"]


_PATIENCE = 3.0  # seconds for a filesystem to show that it is not frozen


class QgaGrowthStep(TypedDict):
    layer: QgaGrowthLayer
    device: str
    tool: str
    before: UInt64
    after: UInt64
    done: bool


class QgaGrowth(TypedDict):
    mountpoint: str
    type: str
    size: UInt64
    steps: list[QgaGrowthStep]
    obstacles: list[str]


class Growing(CommandGroup):
    """Growing filesystems."""

    def __init__(self, agent: Services) -> None:
        super().__init__(agent)
        self._lock = allocate_lock()

    @command(access="unrestricted", blocking=True, timed=False, secret=("passphrase",))
    def qga_grow_filesystem(
        self, mountpoint: str, dry_run: bool = False, passphrase: Optional[str] = None
    ) -> QgaGrowth:
        """Grow a mounted ext4, XFS or btrfs filesystem, and what it lies on, to fill the disk.

        mountpoint: where it is mounted.
        dry-run: only report the steps.
        passphrase: of the LUKS2 volume that the filesystem lies on, if its key is in the kernel's
            keyring.
        Returns the size of the filesystem, the steps from the disk up, each with its sizes before
        and after in bytes, and why devices beneath cannot grow. No steps: there is nothing to grow.
        """
        if not self._lock.acquire(False):
            raise QgaError("another filesystem is being grown; try again when that has ended")
        try:
            return self._grow(mountpoint, dry_run, passphrase)
        finally:
            self._lock.release()

    def _grow(self, mountpoint: str, dry_run: bool, passphrase: Optional[str]) -> QgaGrowth:
        filesystem, mount = open_filesystem(mountpoint)
        try:
            if is_frozen(mount, _PATIENCE):
                raise QgaError(
                    f"the filesystem at {filesystem.mountpoint} is frozen, or its disk hangs"
                )
            plan = _plan(filesystem, passphrase)
            steps = [_told(step, step.after, done=False) for step in plan.steps]
            if not dry_run:
                stop_if_given_up()
                self._carry_out(plan.steps, steps)
            return {
                "mountpoint": filesystem.mountpoint,
                "type": filesystem.type,
                "size": filesystem.size,
                "steps": steps,
                "obstacles": plan.obstacles,
            }
        finally:
            filesystem.close()

    def _carry_out(self, plan: list[Step], steps: list[QgaGrowthStep]) -> None:
        for number, step in enumerate(plan):
            try:
                if self.agent.frozen:
                    raise QgaError("the filesystems were frozen meanwhile")
                step.grow()
            except QgaError as error:
                raise QgaError(f"{error}; {_so_far(plan[:number])}") from error
            steps[number] = _told(step, step.measure(), done=True)


def _plan(filesystem: Filesystem, passphrase: Optional[str]) -> Plan:
    """Raises QgaError if nothing can grow although there is room."""
    try:
        plan = Plan(filesystem, passphrase)
    except OSError as error:  # a device is gone
        where = f"{error.filename}: " if error.filename else ""
        reason = f"cannot examine the devices beneath {filesystem.mountpoint}"
        raise QgaError(f"{reason}: {where}{error.strerror}") from error
    if plan.obstacles and not plan.steps:
        raise QgaError("; ".join(plan.obstacles))
    return plan


def _told(step: Step, after: int, done: bool) -> QgaGrowthStep:
    return {
        "layer": step.layer,  # type: ignore[typeddict-item]
        "device": step.device,
        "tool": step.tool,
        "before": step.before,
        "after": after,
        "done": done,
    }


def _so_far(done: list[Step]) -> str:
    if not done:
        return "nothing was changed"
    return f"already grown: {', '.join(step.device for step in done)}; try again to go on"
