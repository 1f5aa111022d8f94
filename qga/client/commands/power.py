"""Shutting the guest down and putting it to sleep.

These return once the agent has accepted them. Agents do not reply on success.
"""

from __future__ import annotations

from typing import Literal

from qga.client.connection import Connection


class Power(Connection):
    def shutdown(
        self, mode: Literal["powerdown", "halt", "reboot"] = "powerdown", *, force: bool = False
    ) -> None:
        """Shut the guest down. A halted one stays on and does nothing.

        force: whether to override inhibitor locks of programs in the guest, such as a package
            manager; only qga can.
        """
        if force:
            self.order("qga-shutdown", mode=mode, force=True)
        else:
            self.order("guest-shutdown", mode=mode)

    def suspend(self, mode: Literal["ram", "disk", "hybrid"] = "ram") -> None:
        """Suspend the guest: to RAM, to disk, or to RAM with a copy on disk."""
        self.order(f"guest-suspend-{mode}")
