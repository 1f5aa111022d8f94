"""The doctor's checks of a channel: does it exist, who may use it, and who does?"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from qga import ports
from qga.channels.virtio_serial import find_port
from qga.doctor import processes
from qga.doctor.processes import Process
from qga.findings import Finding, failed, ok, warning
from qga.settings.config import ChannelConfig

_VSOCK = "/dev/vsock"
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def users_of(channel: ChannelConfig) -> list[Process]:
    """The processes that have the channel open; unknown for a vsock port."""
    if channel.method == "vsock-listen" or not channel.path:
        return []
    if channel.method == "unix-listen":
        return processes.listeners(channel.path)
    return processes.holders(_device_path(channel))


def diagnose_channel(channel: ChannelConfig, agent: Process | None) -> Iterator[Finding]:
    """agent: the process that should serve it."""
    if not channel.path:
        yield ok("channel", f"{channel.method}: the service manager passes the socket")
        return
    if channel.method == "vsock-listen":
        yield _vsock(channel.path)
        return
    if channel.method != "unix-listen":
        missing = list(_device(_device_path(channel), _advice(channel)))
        yield from missing
        if any(finding.status == "failed" for finding in missing):
            return
    yield from _users(channel.path, users_of(channel), agent)


def _device_path(channel: ChannelConfig) -> str:
    return find_port(channel.path) if channel.method == "virtio-serial" else channel.path


def _advice(channel: ChannelConfig) -> str:
    """What to try if the device does not exist."""
    if channel.method != "virtio-serial":
        return "set path to the serial device that the host has configured"
    names = [port.name for port in ports.list_ports() if port.name]
    if names:
        advice = f"set path to a port of this machine ({', '.join(names)}), or add"
    else:
        advice = "this machine has no virtio port: add"
    name = os.path.basename(channel.path)
    target = f"<channel type='unix'><target type='virtio' name='{name}'/></channel>"
    return f"{advice} the channel on the host (libvirt: {target})"


def _device(path: str, advice: str) -> Iterator[Finding]:
    try:
        status = os.stat(path)
    except OSError as error:
        yield failed("channel", f"{path}: {error.strerror}", advice)
        return
    if not stat.S_ISCHR(status.st_mode):
        yield failed("channel", f"{path} is not a device", advice)
        return
    mode = f"{stat.S_IMODE(status.st_mode):04o}"
    if not os.access(path, os.R_OK | os.W_OK):
        text = f"no permission to open {path} (mode {mode}, uid {status.st_uid})"
        yield failed("channel", text, "run the agent, and qemu-ga --doctor, as root")
    elif status.st_mode & _OTHERS:
        text = (
            f"users other than the owner can write to {path}, and so answer the host (mode {mode})"
        )
        advice = f"chmod go-w {path}, and add a udev rule to keep it so"
        yield warning("channel", text, advice)


def _users(path: str, users: list[Process], agent: Process | None) -> Iterator[Finding]:
    ours = [user for user in users if agent is not None and user.pid == agent.pid]
    others = [user for user in users if user not in ours and user.pid != 1]  # systemd passes it on
    if ours:
        yield ok("channel", f"{path} is served by pid {ours[0].pid}")
    elif not users and os.geteuid():
        yield warning(
            "channel", f"cannot see which process has {path} open", "run qemu-ga --doctor as root"
        )
    elif not others:
        advice = "start or restart the agent; if it fails to open the channel, its log shows why"
        yield failed("channel", f"no process has {path} open", advice)
    for user in others:
        advice = f"stop that process: kill {user.pid}"
        if user.is_original:
            advice = "that is QEMU's own agent: install only one of the two"
        elif user.options is not None:
            advice = f"that is a second qga agent: stop one of them (kill {user.pid})"
        yield failed("channel", f"{path} is in use by pid {user.pid}: {user.name}", advice)


def _vsock(path: str) -> Finding:
    if os.path.exists(_VSOCK):
        return ok("channel", f"vsock {path}: this machine has a vsock device")
    advice = "modprobe vmw_vsock_virtio_transport, or add <vsock/> to the guest on the host"
    return failed("channel", f"vsock {path}: {_VSOCK} does not exist", advice)
