"""Shutting the guest down and putting it to sleep.

This goes through the service manager if there is one, so that services stop in order, and otherwise
through the kernel alone.

What must stay true: what systemd refuses is refused. For example, an upgrade in progress holds an
inhibitor lock, which also binds root since systemd 257. The ways around systemd, a signal to PID 1
or a write to /sys/power, are for guests where it does not answer. Only `force` overrides a refusal,
and does so through systemd.
"""

from __future__ import annotations

import os
import signal
from typing import Literal

from qga import CommandGroup, QgaError, command
from qga.programs.run import run

_TIMEOUT = 600.0  # seconds; services may take long to stop

# Programs for each mode, the best first. `shutdown` is last: its options differ between systems,
# and BusyBox does not have it.
_SHUTDOWN = {
    "powerdown": [["systemctl", "poweroff"], ["poweroff"], ["shutdown", "-P", "+0"]],
    "halt": [["systemctl", "halt"], ["halt"], ["shutdown", "-H", "+0"]],
    "reboot": [["systemctl", "reboot"], ["reboot"], ["shutdown", "-r", "+0"]],
}

# Programs that accept signals: systemd(1) and BusyBox's init.
_RT = int(signal.SIGRTMIN)
_INITS = {
    "systemd": {"powerdown": _RT + 4, "halt": _RT + 3, "reboot": _RT + 5},
    "busybox init": {
        "powerdown": int(signal.SIGUSR2),
        "halt": int(signal.SIGUSR1),
        "reboot": int(signal.SIGTERM),
    },
}

_KERNEL = {"powerdown": 0x4321FEDC, "halt": 0xCDEF0123, "reboot": 0x01234567}  # reboot(2)

# For each mode of sleep the kernel's state, and programs.
_SUSPEND = {
    "ram": ("mem", [["systemctl", "suspend"], ["pm-suspend"]]),
    "disk": ("disk", [["systemctl", "hibernate"], ["pm-hibernate"]]),
    "hybrid": ("disk", [["systemctl", "hybrid-sleep"], ["pm-suspend-hybrid"]]),
}

_SYSTEMD_RUNS = "/run/systemd/system"  # sd_booted(3)
# What `systemctl is-system-running` prints when systemd answers.
_STATES = ("initializing", "starting", "running", "degraded", "maintenance", "stopping")
_ANSWER = 30.0  # seconds
_LOCKED = "Access denied"  # the only reason that systemd 257 gives root for an inhibitor lock

ShutdownMode = Literal["powerdown", "halt", "reboot"]


class Power(CommandGroup):
    """Shutdown and suspend."""

    @command(access="unrestricted", blocking=True, success_response=False)
    def guest_shutdown(self, mode: str = "powerdown") -> None:
        """Shut the guest down. There is no reply on success.

        mode: powerdown, halt or reboot.
        """
        if mode not in _SHUTDOWN:
            raise QgaError("mode is invalid (valid values are: halt|powerdown|reboot")
        _shut_down(mode, force=False)

    @command(access="unrestricted", blocking=True, success_response=False, like=("guest-shutdown",))
    def qga_shutdown(self, mode: ShutdownMode = "powerdown", force: bool = False) -> None:
        """Shut the guest down, optionally overriding refusals. There is no reply on success.

        mode: powerdown, halt or reboot.
        force: whether to override inhibitor locks and other refusals of systemd.
        """
        _shut_down(mode, force=force)

    @command(access="unrestricted", blocking=True, success_response=False)
    def guest_suspend_disk(self) -> None:
        """Suspend to disk (hibernate). There is no reply on success."""
        _suspend("disk")

    @command(access="unrestricted", blocking=True, success_response=False)
    def guest_suspend_ram(self) -> None:
        """Suspend to memory; QEMU's system_wakeup resumes. There is no reply on success."""
        _suspend("ram")

    @command(access="unrestricted", blocking=True, success_response=False)
    def guest_suspend_hybrid(self) -> None:
        """Suspend to memory, after saving it to disk as well. There is no reply on success."""
        _suspend("hybrid")


def _shut_down(mode: str, *, force: bool) -> None:
    if not _run_first_of(_SHUTDOWN[mode], force=force) and not _tell_init(mode):
        _tell_kernel(mode)


def _run_first_of(programs: list[list[str]], *, force: bool = False) -> bool:
    """Run the first of these programs that succeeds. Returns whether one did.

    Raises QgaError if systemd refuses, unless forced.
    """
    for program, *words in programs:
        if program == "systemctl" and not os.path.isdir(_SYSTEMD_RUNS):
            continue
        override = ["-i"] if force and program == "systemctl" else []
        argv = [program, *words, *override]
        try:
            ended = run(argv, _TIMEOUT)
        except OSError:  # it does not exist, or hangs
            continue
        if ended.status == 0:
            return True
        if not force and _systemd_answers():
            reason = " ".join(ended.output.split())
            if _LOCKED in reason:
                reason += " (systemd-inhibit --list in the guest shows who holds a lock)"
            raise QgaError(f"{' '.join(argv)} failed with status {ended.status}: {reason}")
    return False


def _systemd_answers() -> bool:
    """Whether systemd runs and responds, so that its refusal counts."""
    if not os.path.isdir(_SYSTEMD_RUNS):
        return False
    try:
        state = run(["systemctl", "is-system-running"], _ANSWER).output.split()
    except OSError:
        return False
    return bool(state) and state[-1] in _STATES


def _tell_init(mode: str) -> bool:
    """Signal PID 1. Returns whether it is a program that accepts signals for this."""
    known = _INITS.get(_init_program())
    if known is None:
        return False
    os.kill(1, known[mode])
    return True


def _init_program() -> str:
    """The name of its file, since many are called init. BusyBox is many programs in one file."""
    file = os.path.basename(os.readlink("/proc/1/exe"))
    program = file.partition(" ")[0]  # "systemd (deleted)" after an upgrade
    if program != "busybox":
        return program
    with open("/proc/1/cmdline", encoding="utf-8", errors="replace") as cmdline:
        return f"busybox {os.path.basename(cmdline.read().partition(chr(0))[0])}"


def _tell_kernel(mode: str) -> None:
    """Write all data to the disks, and shut down at once, without ending programs first."""
    import ctypes

    os.sync()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.reboot(_KERNEL[mode]):
        raise QgaError(f"failed to shut down: {os.strerror(ctypes.get_errno())}")


def _suspend(mode: str) -> None:
    """Suspend with systemd, pm-utils, or the kernel alone (admin-guide/pm/sleep-states)."""
    state, programs = _SUSPEND[mode]
    if state not in _words("/sys/power/state") or (
        mode == "hybrid" and "suspend" not in _words("/sys/power/disk")
    ):
        raise QgaError("the requested suspend mode is not supported by the guest")
    if mode in ("disk", "hybrid") and not _has_swap():
        raise QgaError(
            "the requested suspend mode is not supported by the guest: there is no swap space"
        )
    if _run_first_of(programs):
        return
    try:
        if mode == "hybrid":
            _write("/sys/power/disk", "suspend")
        _write("/sys/power/state", state)
    except OSError as error:
        raise QgaError(f"failed to suspend: {error.strerror}") from error


def _has_swap() -> bool:
    """Whether there is swap space on a disk to save the memory in."""
    with open("/proc/swaps", encoding="utf-8", errors="replace") as file:
        areas = file.readlines()[1:]
    return any(not area.startswith("/dev/zram") for area in areas)


def _words(path: str) -> list[str]:
    """The words in a file of the kernel, which has the selected one in brackets."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read().replace("[", "").replace("]", "").split()
    except OSError:
        return []


def _write(path: str, word: str) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(word.encode())
