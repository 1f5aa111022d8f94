"""Shutting the guest down and putting it to sleep.

Each goes through the service manager where there is one, so that services end in order, and
down to what the kernel alone can do where there is none.

What must stay true: what systemd refuses is refused. An upgrade that is under way holds a lock
against it (systemd.inhibitor, which binds root, too, since systemd 257), and what goes past
systemd, a signal to PID 1 or a write to /sys/power, is for guests where nobody answers. Only
`force` goes past a refusal, and systemd is told so.
"""

from __future__ import annotations

import os
import signal
from typing import Literal

from qga import CommandGroup, QgaError, command
from qga.programs.run import run

_TIMEOUT = 600.0  # seconds; services may take their time to end

# What to run for each mode, the best first; `shutdown` last, for it takes different options on
# different systems, and BusyBox has none.
_SHUTDOWN = {
    "powerdown": [["systemctl", "poweroff"], ["poweroff"], ["shutdown", "-P", "+0"]],
    "halt": [["systemctl", "halt"], ["halt"], ["shutdown", "-H", "+0"]],
    "reboot": [["systemctl", "reboot"], ["reboot"], ["shutdown", "-r", "+0"]],
}

# The programs that know signals for it: systemd(1), and BusyBox's init.
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

# For each mode of sleep the kernel's state, and what to run.
_SUSPEND = {
    "ram": ("mem", [["systemctl", "suspend"], ["pm-suspend"]]),
    "disk": ("disk", [["systemctl", "hibernate"], ["pm-hibernate"]]),
    "hybrid": ("disk", [["systemctl", "hybrid-sleep"], ["pm-suspend-hybrid"]]),
}

_SYSTEMD_RUNS = "/run/systemd/system"  # sd_booted(3)
# What `systemctl is-system-running` says when systemd answers.
_STATES = ("initializing", "starting", "running", "degraded", "maintenance", "stopping")
_ANSWER = 30.0  # seconds
_LOCKED = "Access denied"  # all that systemd 257 says to root of an inhibitor's lock

ShutdownMode = Literal["powerdown", "halt", "reboot"]


class Power(CommandGroup):
    """Shutdown and suspend."""

    @command(access="unrestricted", blocking=True, success_response=False)
    def guest_shutdown(self, mode: str = "powerdown") -> None:
        """Shut the guest down. Success is not answered: the host sees the guest go.

        mode: powerdown, halt or reboot.
        """
        if mode not in _SHUTDOWN:
            raise QgaError("mode is invalid (valid values are: halt|powerdown|reboot")
        _shut_down(mode, force=False)

    @command(access="unrestricted", blocking=True, success_response=False, like=("guest-shutdown",))
    def qga_shutdown(self, mode: ShutdownMode = "powerdown", force: bool = False) -> None:
        """Shut the guest down, as guest-shutdown does. Success is not answered.

        force: whether to go past locks that programs hold against it, and past a systemd that
            refuses.
        """
        _shut_down(mode, force=force)

    @command(access="unrestricted", blocking=True, success_response=False)
    def guest_suspend_disk(self) -> None:
        """Suspend to disk (hibernate). Success is not answered."""
        _suspend("disk")

    @command(access="unrestricted", blocking=True, success_response=False)
    def guest_suspend_ram(self) -> None:
        """Suspend to memory; QEMU wakes the guest with system_wakeup. Success is not answered."""
        _suspend("ram")

    @command(access="unrestricted", blocking=True, success_response=False)
    def guest_suspend_hybrid(self) -> None:
        """Suspend to memory, with an image on disk in case of a power cut. Success is not
        answered."""
        _suspend("hybrid")


def _shut_down(mode: str, *, force: bool) -> None:
    if not _run_first_of(_SHUTDOWN[mode], force=force) and not _tell_init(mode):
        _tell_kernel(mode)


def _run_first_of(programs: list[list[str]], *, force: bool = False) -> bool:
    """Run the first of these that is there and succeeds; whether one did.

    QgaError where systemd refuses, unless forced.
    """
    for program, *words in programs:
        if program == "systemctl" and not os.path.isdir(_SYSTEMD_RUNS):
            continue
        past_locks = ["-i"] if force and program == "systemctl" else []
        argv = [program, *words, *past_locks]
        try:
            ended = run(argv, _TIMEOUT)
        except OSError:  # it is not there, or hangs
            continue
        if ended.status == 0:
            return True
        if not force and _systemd_answers():
            reason = " ".join(ended.output.split())
            if _LOCKED in reason:
                reason += " (systemd-inhibit --list in the guest shows who has locked it)"
            raise QgaError(f"{' '.join(argv)} has failed with status {ended.status}: {reason}")
    return False


def _systemd_answers() -> bool:
    """Whether systemd runs and is there to say no."""
    if not os.path.isdir(_SYSTEMD_RUNS):
        return False
    try:
        said = run(["systemctl", "is-system-running"], _ANSWER).output.split()
    except OSError:
        return False
    return bool(said) and said[-1] in _STATES


def _tell_init(mode: str) -> bool:
    """By a signal, without any program; whether init is one that heeds it."""
    known = _INITS.get(_init_program())
    if known is None:
        return False
    os.kill(1, known[mode])
    return True


def _init_program() -> str:
    """By its file, for many are called init; BusyBox's file is many programs."""
    file = os.path.basename(os.readlink("/proc/1/exe"))
    program = file.partition(" ")[0]  # "systemd (deleted)" after an upgrade
    if program != "busybox":
        return program
    with open("/proc/1/cmdline", encoding="utf-8", errors="replace") as cmdline:
        return f"busybox {os.path.basename(cmdline.read().partition(chr(0))[0])}"


def _tell_kernel(mode: str) -> None:
    """At once: nobody is there to end the programs first, so what they wrote is made safe."""
    import ctypes

    os.sync()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.reboot(_KERNEL[mode]):
        raise QgaError(f"failed to shut down: {os.strerror(ctypes.get_errno())}")


def _suspend(mode: str) -> None:
    """Through systemd, pm-utils, or the kernel alone (admin-guide/pm/sleep-states)."""
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
    """Whether there is swap space that outlives the guest, for the image of its memory."""
    with open("/proc/swaps", encoding="utf-8", errors="replace") as file:
        areas = file.readlines()[1:]
    return any(not area.startswith("/dev/zram") for area in areas)


def _words(path: str) -> list[str]:
    """What a file of the kernel offers; the one chosen stands in brackets."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read().replace("[", "").replace("]", "").split()
    except OSError:
        return []


def _write(path: str, word: str) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(word.encode())
