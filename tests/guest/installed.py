"""Our unit and udev rule in the guest, installed in place of the test harness's unit.

The files are copied unchanged. A drop-in sets the path of the code under test.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from . import service
from .vm import AGENT_PORT, Guest

UNIT = "qemu-guest-agent.service"
VSOCK = "qemu-guest-agent-vsock"

# The image masks the original's unit of the same name.
INSTALL = r"""
cd /etc/systemd/system
rm qemu-guest-agent.service
cp /opt/qga/systemd/qemu-guest-agent*.service /opt/qga/systemd/*.socket .
cp /opt/qga/systemd/*.rules /etc/udev/rules.d
for unit in qemu-guest-agent qemu-guest-agent-vsock; do
    mkdir $unit.service.d
    printf '[Service]\nExecStart=\nExecStart=/opt/qga/qemu-ga $DAEMON_ARGS $RPC_ARGS\n' \
        >$unit.service.d/10-place.conf
done
systemctl daemon-reload
udevadm control --reload
"""
REMOVE = r"""
cd /etc/systemd/system
systemctl stop qemu-guest-agent-vsock.socket qemu-guest-agent-vsock qemu-guest-agent || true
rm -r qemu-guest-agent* /etc/udev/rules.d/99-qemu-guest-agent.rules
ln -s /dev/null qemu-guest-agent.service
systemctl daemon-reload
udevadm control --reload
"""


@contextmanager
def installed(guest: Guest) -> Iterator[None]:
    """Install the unit and plug in the port, which starts it."""
    with service.stopped(guest):
        try:
            guest.run(["/bin/sh", "-ec", INSTALL])
            replug(guest)
            yield
        finally:
            guest.run(["/bin/sh", "-ec", REMOVE])


def replug(guest: Guest) -> None:
    """Unplug the port, plug it in again and wait until an agent has it open."""
    guest.unplug_port()
    service.wait_for(lambda: show(guest, "ActiveState") == "inactive", "the unit to end")
    guest.forget_events()
    guest.plug_port()
    guest.wait_port(AGENT_PORT)


@contextmanager
def drop_in(guest: Guest, text: str, unit: str = UNIT) -> Iterator[None]:
    """Change the unit by a drop-in and restart it. Undo both at the end."""
    path = f"/etc/systemd/system/{unit}.d/50-test.conf"
    try:
        guest.run(["/bin/sh", "-ec", f"cat >{path}"], stdin=text)
        restart(guest, unit)
        yield
    finally:
        guest.run(["rm", path])
        restart(guest, unit)


def restart(guest: Guest, unit: str = UNIT) -> None:
    """Restart the unit. Returns when the agent has reported that it is ready."""
    guest.run(["/bin/sh", "-ec", f"systemctl daemon-reload; systemctl restart {unit}"])


def show(guest: Guest, name: str, unit: str = UNIT) -> str:
    """A property of the unit."""
    return guest.run(["systemctl", "show", f"--property={name}", "--value", unit]).stdout.strip()


def wait_until_another_serves(guest: Guest, pid: int) -> None:
    """Wait until the agent is another process than `pid`, and ready."""

    def is_another() -> bool:
        argv = ["systemctl", "show", "--property=ActiveState,MainPID", UNIT]
        shown = set(guest.run(argv).stdout.split())
        return "ActiveState=active" in shown and not {"MainPID=0", f"MainPID={pid}"} & shown

    service.wait_for(is_another, "another agent")


def wait_for_status(guest: Guest, text: str) -> None:
    service.wait_for(lambda: show(guest, "StatusText") == text, f"the status {text!r}")
