"""Growing filesystems of the guest."""

from typing import Optional

import typer

from qga.client.agent import GuestAgent
from qga.client.storage import Growth, GrowthStep
from qga.ctl import display
from qga.ctl.app import answer, command
from qga.ctl.command import ADVANCED
from qga.ctl.guest_words import Line, Surroundings, first_word
from qga.ctl.settings import Settings
from qga.ctl.standard_input import first_line, utf8
from qga.ctl.tables import Row, show_table, yes
from qga.ctl.units import size

LAYERS = {
    "crypt": "encrypted volume",
    "physical-volume": "physical volume",
    "logical-volume": "logical volume",
}


def is_mountpoint(words: list[str], _line: Line, _surroundings: Surroundings) -> bool:
    return len(words) < 2


@command(ADVANCED, first_word("GUEST MOUNTPOINT", is_mountpoint))
def grow(
    context: typer.Context,
    mountpoint: str = typer.Argument(
        ...,
        metavar="MOUNTPOINT",
        help="Its mount point in the guest.",
        show_default=False,
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Show the steps, and change nothing."),
    passphrase_stdin: bool = typer.Option(
        False,
        "--passphrase-stdin",
        help="Read the passphrase of a LUKS2 volume from standard input.",
    ),
) -> None:
    """Grow a filesystem after its disk was made larger.

    The partition, LVM volumes, an encrypted volume, and the ext4, XFS or btrfs filesystem grow one
    after the other while they are in use. Nothing is changed if a step would fail.

    \b
    Examples:
      qgactl grow web / --dry-run
      qgactl grow web /
      qgactl grow web /srv --passphrase-stdin < passphrase
    """
    settings: Settings = context.obj
    passphrase = read_passphrase() if passphrase_stdin else None

    def ask(agent: GuestAgent) -> Growth:
        return agent.grow_filesystem(mountpoint, dry_run=dry_run, passphrase=passphrase)

    answer(context, ask, lambda growth: show_growth(settings.guest, growth))


def read_passphrase() -> str:
    # As cryptsetup(8) does: to the first newline.
    try:
        return utf8(first_line("passphrase").rstrip(b"\n"))
    except ValueError as error:
        raise typer.BadParameter(f"--passphrase-stdin: {error}") from None


def show_growth(guest: str, growth: Growth) -> None:
    if growth.steps:
        heads = ("Layer", "Device", "Tool", "Before", "After", "Done")
        show_table(heads, map(step_row, growth.steps), right=("Before", "After"))
    else:
        where = f"{guest}: the filesystem at {growth.mountpoint} ({size(growth.size)})"
        display.confirm(f"{where} has nowhere to grow")
    for obstacle in growth.obstacles:
        display.note(obstacle)


def step_row(step: GrowthStep) -> Row:
    layer = LAYERS.get(step.layer, step.layer)
    sizes: tuple[Optional[str], ...] = (size(step.before), size(step.after))
    return (layer, step.device, step.tool, *sizes, yes(step.done))
