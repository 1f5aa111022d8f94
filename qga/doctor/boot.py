"""What starts the agent at boot: systemd and udev, OpenRC's runlevels, or sysvinit's."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

from qga.doctor.unit import Unit
from qga.findings import Finding, failed, ok, warning
from qga.programs.run import run

_NAME = "qemu-guest-agent"
_SCRIPT = f"etc/init.d/{_NAME}"
_RULE = "udev/rules.d/99-qemu-guest-agent.rules"
_RULES = (f"etc/{_RULE}", f"run/{_RULE}", f"usr/lib/{_RULE}", f"lib/{_RULE}")
_OPENRC = "run/openrc"
_SYSVINIT = "run/initctl"  # init(8) reads requests from it
_TIMEOUT = 10.0  # seconds


def diagnose_boot(unit: Unit | None, root: str = "/") -> Iterator[Finding]:
    """Report what starts the agent at boot, or that nothing does."""
    if unit is not None:
        yield _by_systemd(unit, root)
    elif os.path.isdir(root + _OPENRC):
        links = glob.glob(f"{root}etc/runlevels/*/{_NAME}")
        yield _by_script("OpenRC", links, f"rc-update add {_NAME} default", root)
    elif os.path.exists(root + _SYSVINIT):
        links = glob.glob(f"{root}etc/rc[2-5].d/S??{_NAME}")
        yield _by_script("sysvinit", links, f"update-rc.d {_NAME} defaults", root)
    else:
        name = _first_line(f"{root}proc/1/comm")
        yield ok("boot", f"init is {name}: whether it starts the agent cannot be seen from here")


def _by_systemd(unit: Unit, root: str) -> Finding:
    socket = unit.name.replace("-vsock.service", "-vsock.socket")
    if run(["systemctl", "is-enabled", socket], _TIMEOUT).output.strip() == "enabled":
        return ok("boot", f"{socket} is enabled")
    rule = next((path for path in _RULES if os.path.exists(root + path)), "")
    if socket == unit.name and rule and os.path.getsize(root + rule):
        return ok("boot", f"udev starts {unit.name} when the port appears, by /{rule}")
    return warning("boot", f"nothing starts {unit.name} at boot", f"systemctl enable {socket}")


def _by_script(init: str, links: list[str], advice: str, root: str) -> Finding:
    path = root + _SCRIPT
    if not os.path.exists(path):
        text = f"there is no /{_SCRIPT}, by which {init} would start the agent"
        return warning("boot", text, "install the package qga, or have init start qemu-ga")
    if not os.access(path, os.X_OK):
        text = f"/{_SCRIPT} is not executable, so {init} does not start the agent at boot"
        return failed("boot", text, f"chmod +x /{_SCRIPT}")
    if not links:
        return failed("boot", f"/{_SCRIPT} is not enabled in any runlevel of {init}", advice)
    levels = " ".join(sorted(os.path.basename(os.path.dirname(link)) for link in links))
    return ok("boot", f"/{_SCRIPT} is enabled for {init} in {levels}")


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().rstrip("\n")
    except OSError:
        return "unknown"
