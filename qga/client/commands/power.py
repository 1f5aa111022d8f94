"""Shutting the guest down and putting it to sleep.

These return once the agent has accepted them: success is not answered, it is seen from outside.
"""

from __future__ import annotations

from typing import Literal

from qga.client.connection import Connection


class Power(Connection):
    def shutdown(
        self, mode: Literal["powerdown", "halt", "reboot"] = "powerdown", *, force: bool = False
    ) -> None:
        """Shut the guest down. A halted one stays on and does nothing.

        force: whether to go past locks that programs in the guest hold against it, such as an
            upgrade's; our agent alone can.
        """
        if force:
            self.order("qga-shutdown", mode=mode, force=True)
        else:
            self.order("guest-shutdown", mode=mode)

    def suspend(self, mode: Literal["ram", "disk", "hybrid"] = "ram") -> None:
        """Put the guest to sleep: in its memory, on its disk, or in memory with a copy on disk."""
        self.order(f"guest-suspend-{mode}")
