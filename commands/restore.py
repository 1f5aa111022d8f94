"""Repairing a guest after a restore, resume or clone: clock, random numbers, leases, identity."""

from __future__ import annotations

import time as clocks
from typing import TYPE_CHECKING, Optional

from qga import CommandGroup, QgaError, command
from qga.records import TypedDict
from qga.task import Lock

from ._steps import QgaStep, step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qga.findings import Finding
    from qga.plugin.services import Services
    from qga.settings.config import Config

_TIMES = range(3_155_760_000 * 10**9)  # nanoseconds, until 2070 as for guest-set-time


class QgaResynced(TypedDict):
    steps: list[QgaStep]


class QgaNewIdentity(TypedDict):
    steps: list[QgaStep]
    remaining: list[str]


class Restore(CommandGroup):
    """After a restore, a resume or a clone."""

    def __init__(self, agent: Services) -> None:
        super().__init__(agent)
        self._changing = Lock()

    @command(access="unrestricted", blocking=True, secret=("entropy",), like=("guest-set-time",))
    def qga_resync(self, time: Optional[int] = None, entropy: Optional[str] = None) -> QgaResynced:
        """Repair a guest that continues from a snapshot: clock, random numbers and DHCP leases.

        time: the host's time in nanoseconds since 1970-01-01 UTC, for guests without the PTP clock
            of KVM.
        entropy: 16 to 512 random bytes of the host, base64-encoded.
        Returns a text for each step that says what was done, or why not: clock, which is set if it
        is more than a second off; random; dhcp.
        """
        since = clocks.monotonic()
        from . import _host_clock, _leases, _random_pool

        if time is not None and time not in _TIMES:
            raise QgaError("invalid time: use nanoseconds since 1970, until 2069")
        random_bytes = _random_pool.decode_entropy(entropy)
        return {
            "steps": [
                step("clock", lambda: _host_clock.follow_host(time, since)),
                step("random", lambda: _random_pool.add(random_bytes)),
                step("dhcp", _leases.renew),
            ]
        }

    @command(access="unrestricted", blocking=True, timed=False, secret=("entropy",))
    def qga_set_identity(
        self,
        hostname: Optional[str] = None,
        machine_id: bool = False,
        ssh_host_keys: bool = False,
        entropy: Optional[str] = None,
    ) -> QgaNewIdentity:
        """Give a clone an identity of its own. Nothing is rebooted.

        hostname: the new host name.
        machine_id: whether to generate a machine ID.
        ssh_host_keys: whether to generate ssh host keys, of the types that there are.
        entropy: as for qga-resync. It is added first, because clones generate the same random
            numbers.
        Returns `steps` as qga-resync does, for each requested part; a part that failed is
        unchanged. `remaining` lists what still uses the old identity, such as ssh connections and
        mounts.
        """
        from . import _host_keys, _hostname, _machine_id, _old_identity, _random_pool

        if hostname is None and not machine_id and not ssh_host_keys:
            raise QgaError("nothing to change: give hostname, machine-id or ssh-host-keys")
        if hostname is not None:
            _hostname.check(hostname)
        random_bytes = _random_pool.decode_entropy(entropy)
        with self._changing:
            steps, old_id = [], _machine_id.current()
            if random_bytes is not None:
                steps.append(step("random", lambda: _random_pool.add(random_bytes)))
            if hostname is not None:
                # First, as the comments of ssh keys have it.
                steps.append(step("hostname", lambda: _hostname.change(hostname)))
            if machine_id:
                steps.append(step("machine-id", _machine_id.change))
            if ssh_host_keys:
                steps.append(step("ssh-host-keys", _host_keys.change))
        has_new_id = _machine_id.current() != old_id
        return {
            "steps": steps,
            "remaining": _old_identity.remaining(old_id if has_new_id else ""),
        }

    @classmethod
    def do_diagnose(cls, config: Config) -> Iterator[Finding]:
        from qga.findings import ok

        from ._host_clock import kvm_clock

        device = kvm_clock()
        source = (
            f"from {device} (KVM)" if device else "from the host's request: there is no KVM PTP"
        )
        yield ok("resync", f"qga-resync sets the clock {source}")
