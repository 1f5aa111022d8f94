"""The guest's host name and operating system."""

from __future__ import annotations

import os
import re
from functools import lru_cache

from qga import CommandGroup, NotRequired, command
from qga.records import TypedDict

# Not by platform.freedesktop_os_release, which came with Python 3.10.
_OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")  # os-release(5)
_MAX_SIZE = 1024 * 1024  # characters

GuestHostName = TypedDict("GuestHostName", {"host-name": str})

GuestOSInfo = TypedDict(
    "GuestOSInfo",
    {
        "kernel-release": NotRequired[str],
        "kernel-version": NotRequired[str],
        "machine": NotRequired[str],
        "id": NotRequired[str],
        "name": NotRequired[str],
        "pretty-name": NotRequired[str],
        "version": NotRequired[str],
        "version-id": NotRequired[str],
        "variant": NotRequired[str],
        "variant-id": NotRequired[str],
    },
)


class System(CommandGroup):
    """Host name and operating system."""

    @command(access="audit")
    def guest_get_host_name(self) -> GuestHostName:
        """Report the host name."""
        return {"host-name": os.uname().nodename}

    @command(access="audit")
    def guest_get_osinfo(self) -> GuestOSInfo:
        """Report the kernel, and the distribution as in os-release(5)."""
        kernel = os.uname()
        info: GuestOSInfo = {
            "kernel-release": kernel.release,
            "kernel-version": kernel.version,
            "machine": kernel.machine,
        }
        release = read_os_release()
        for member in (
            "id",
            "name",
            "pretty-name",
            "version",
            "version-id",
            "variant",
            "variant-id",
        ):
            value = release.get(member.upper().replace("-", "_"))
            if value is not None:
                info[member] = value
        return info


def read_os_release() -> dict[str, str]:
    """The content of the first os-release file that exists."""
    for path in _OS_RELEASE:
        try:
            status = os.stat(path)
            return _parse_file(path, status.st_ino, status.st_mtime_ns, status.st_size)
        except OSError:
            continue
    return {}


@lru_cache(maxsize=1)
def _parse_file(path: str, *_version: int) -> dict[str, str]:
    """Cached until the file changes."""
    with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
        lines = file.read(_MAX_SIZE).split("\n")
    return dict(_parse_line(line) for line in lines if _is_assignment(line))


def _is_assignment(line: str) -> bool:
    """Other lines are ignored. QEMU's agent then ignores the whole file."""
    return "=" in line and not line.lstrip().startswith(("#", ";"))


_QUOTED = re.compile(r"""[ \t]*(?:"(?P<double>(?:[^"\\]|\\.)*)\\?"?|'(?P<single>[^']*)'?)""")
_ESCAPE = re.compile(r'\\(["$`\\])')
_BARE_ESCAPE = re.compile(r"\\(.?)")


def _parse_line(line: str) -> tuple[str, str]:
    """Key and value, as systemd reads them, without surrounding blanks.

    A quote that is not closed extends to the end of the line.
    """
    key, _, text = line.partition("=")
    value, at = "", 0
    while quoted := _QUOTED.match(text, at):
        at = quoted.end()
        double = quoted["double"]
        value += quoted["single"] if double is None else _ESCAPE.sub(r"\1", double)
    return key.strip(), value + _BARE_ESCAPE.sub(r"\1", text[at:].strip())
