"""After a restore, a resume or a clone."""

from __future__ import annotations

import os
import time
from typing import Any

from qga.client.commands.time import Time
from qga.client.conversion import encode_base64
from qga.client.errors import CommandNotFound
from qga.client.restore import NewIdentity, Resynced

# Bytes of this host's random numbers for a guest: twice what its kernel keeps.
ENTROPY_SIZE = 64

# Seconds: the agent steps a clock that is more than this off.
MAX_OFFSET = 1.0

# Seconds. dhclient returns when it has a lease, for which the agent gives it 60 s.
RESYNC_PATIENCE = 180.0

# Seconds: the agent gives ssh-keygen 120 s for each key.
IDENTITY_PATIENCE = 600.0


class Restore(Time):
    def resync(self, *, timeout: float = RESYNC_PATIENCE) -> Resynced:
        """Repair a guest that continues from a snapshot; requires qga.

        Its clock is set to this host's if it is more than a second off, its kernel gets random
        numbers of this host, and its DHCP leases are renewed. A step that fails does not stop the
        others, and raises no error: see `failed` of the result.
        """
        with self._lock:
            before = self._ahead()
            wanted = {"time": time.time_ns(), "entropy": _entropy()}
            reply = self._ask("qga-resync", Resynced, timeout=timeout, **wanted)
            after = self._ahead()
            if after is not None and abs(after) > MAX_OFFSET:
                # The agent loads its code at the first call, and the time was old by then.
                self._ask("qga-resync", Resynced, timeout=timeout, time=time.time_ns())
                after = self._ahead()
            return reply._replace(ahead_before=before, ahead_after=after)

    def set_identity(
        self,
        hostname: str | None = None,
        *,
        machine_id: bool = False,
        ssh_host_keys: bool = False,
        timeout: float = IDENTITY_PATIENCE,
    ) -> NewIdentity:
        """Give a clone an identity of its own, without rebooting it; requires qga.

        hostname: the new host name. machine_id, ssh_host_keys: whether to generate new ones. The
        kernel gets random numbers of this host first. A part that fails stays as it was, and raises
        no error: see `failed` of the result.
        """
        wanted: dict[str, Any] = {"machine_id": machine_id, "ssh_host_keys": ssh_host_keys}
        if hostname is not None:
            wanted["hostname"] = hostname
        with self._lock:
            self.sync()  # an absent agent is reported soon
            return self._ask(
                "qga-set-identity", NewIdentity, timeout=timeout, entropy=_entropy(), **wanted
            )

    def _ahead(self) -> float | None:
        try:
            return self.time_ahead()
        except CommandNotFound:  # it is disabled
            return None


def _entropy() -> str:
    return encode_base64(os.urandom(ENTROPY_SIZE))
