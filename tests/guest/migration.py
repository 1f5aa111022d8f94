"""A guest that migrates from one QEMU of this machine to another, each with sockets of its own.

The disks are shared, as live migration wants it: both QEMUs have one overlay open, and only the one
that runs the guest writes to it.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from .agent_socket import AgentSocket
from .building import RootImage
from .image import code_image, root_image
from .machines import ACCELERATOR
from .service import wait_for
from .vm import ORIGINAL_PORT, SPARE_PORT, Guest

if TYPE_CHECKING:
    from typing_extensions import Self

# QEMU connects to whoever listens here, again and again.
RECONNECTING_PORT = SPARE_PORT._replace(chardev="reconnecting")

# Under TCG a guest that ran on while QEMU 7.2 copied its memory has panicked on arrival.
STANDS_STILL = ACCELERATOR.startswith("tcg")


class Disks:
    """What all places of a guest share; use it as a context manager."""

    def __init__(self) -> None:
        self.image = root_image()
        self.folder = Path(tempfile.mkdtemp(prefix="qga-migration-"))
        self.code = self.folder / "qga.ext4"
        self.root = self.folder / "root.qcow2"

    def __enter__(self) -> Self:
        code_image(self.code)
        create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b"]
        subprocess.run([*create, str(self.image.disk), str(self.root)], check=True)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Place(Guest):
    """A QEMU that the guest runs in, for a while.

    awaits: whether it waits for the guest to arrive, and boots nothing.
    """

    def __init__(self, disks: Disks, *, awaits: bool) -> None:
        super().__init__(hardware)
        self.disks = disks
        self.awaits = awaits

    def do_boot(self) -> None:
        self.launch(self.disks.image, self.disks.code)
        if not self.awaits:
            self.wait_until_booted()

    def qemu_arguments(self, image: RootImage, code_disk: Path, qmp_fd: int) -> list[str]:
        incoming = ["-incoming", "defer"] if self.awaits else []
        return [*super().qemu_arguments(image, code_disk, qmp_fd), *incoming]

    def root_drive(self, _image: RootImage) -> str:
        return f"file={self.disks.root},format=qcow2"

    @property
    def address(self) -> str:
        """The agent's address, for qga.client."""
        return f"unix:{self.channel_path()}"

    def send_to(self, other: Place) -> None:
        """Migrate the guest, which goes on there; a QEMU that has stopped stays here."""
        uri = f"unix:{other.folder / 'arrival'}"
        other.qmp("migrate-incoming", uri=uri)
        if STANDS_STILL:
            self.qmp("stop")
        self.qmp("migrate", uri=uri)
        wait_for(self._has_sent, "the migration")
        # Sooner, "cont" is forgotten: the guest's state comes last.
        wait_for(other._has_arrived, "the guest's arrival")
        other.qmp("cont")
        wait_for(lambda: other.qmp("query-status")["running"], "the guest to go on")

    def _has_sent(self) -> bool:
        state = self.qmp("query-migrate")
        assert state["status"] != "failed", state
        return bool(state["status"] == "completed")

    def _has_arrived(self) -> bool:
        return bool(self.qmp("query-status")["status"] != "inmigrate")

    def arrive(self) -> None:
        """Connect to the original agent of the guest that has arrived."""
        self.original = AgentSocket(self.channel_path(ORIGINAL_PORT), timeout=60)
        self.original.sync()


def hardware(folder: Path) -> list[str]:
    """One more QEMU socket, which connects instead of listening."""
    path = folder / RECONNECTING_PORT.chardev
    chardev = f"socket,id={RECONNECTING_PORT.chardev},path={path},server=off,reconnect=1"
    return ["-chardev", chardev]


class Traveller:
    """A guest, and the place where it is; use it as a context manager."""

    def __init__(self) -> None:
        self.disks = Disks()
        self.here = Place(self.disks, awaits=False)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.disks)
            self.here.__enter__()
            stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.here.end()
        self.disks.__exit__()

    def migrate(self, expect: Callable[[Place], None] = lambda _there: None) -> Place:
        """Take the guest to a new place, and end the old one.

        expect: called with the new place before the guest is sent there.
        """
        there = Place(self.disks, awaits=True)
        there.__enter__()
        try:
            expect(there)
            self.here.send_to(there)
            there.arrive()
        except BaseException:
            there.end()
            raise
        self.here.end()
        self.here = there
        return there
