"""Numbers of ioctl(2) requests against the kernel's headers."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

MODULES = ("_freezer", "_links", "_nvme", "_random_pool", "filesystems", "time")
HEADERS = ("linux/fs.h", "linux/nvme_ioctl.h", "linux/random.h", "linux/rtc.h", "linux/sockios.h")
CODES = {
    name.lstrip("_"): number
    for module in MODULES
    for name, number in vars(import_module(f"qga.commands.{module}")).items()
    if re.fullmatch(r"_(FI|RND|RTC|NVME|SIOC)[A-Z_]+", name) and isinstance(number, int)
}
ioctl_number: Any = import_module("qga.commands._ioctl").ioctl_number

SAME_EVERYWHERE = {
    "FIFREEZE": ("both", "X", 119, 4, 0xC0045877),
    "FITHAW": ("both", "X", 120, 4, 0xC0045878),
    "FITRIM": ("both", "X", 121, 24, 0xC0185879),
    "NVME_IOCTL_ADMIN_CMD": ("both", "N", 0x41, 72, 0xC0484E41),
}
# RNDRESEEDCRNG has no argument.
NO_ARGUMENT = {"x86_64": 0x5207, "s390x": 0x5207, "parisc64": 0x5207} | dict.fromkeys(
    ["alpha", "mips64", "ppc64le", "sparc64"], 0x20005207
)
USUAL, SWAPPED = (0x80247009, 0x4024700A), (0x40247009, 0x8024700A)
# RTC_RD_TIME and RTC_SET_TIME, by the headers of Linux 6.1 in Debian's linux-libc-dev-*-cross.
CLOCK = {
    **dict.fromkeys(["x86_64", "i686", "aarch64", "armv7l", "m68k", "riscv64"], USUAL),
    **dict.fromkeys(["s390x", "sh4", "loongarch64"], USUAL),
    **dict.fromkeys(["alpha", "mips", "mips64", "parisc", "parisc64"], SWAPPED),
    **dict.fromkeys(["ppc", "ppc64", "ppc64le", "sparc64"], SWAPPED),
}


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler and linux-libc-dev")
def test_the_headers_of_this_machine(tmp_path: Path) -> None:
    """The compiler refuses a number that is not the header's."""
    assert {
        *SAME_EVERYWHERE,
        "RTC_RD_TIME",
        "RTC_SET_TIME",
        "RNDRESEEDCRNG",
        "SIOCGIFINDEX",
    } <= set(CODES)
    source = tmp_path / "numbers.c"
    source.write_text(
        "".join(f"#include <{header}>\n" for header in HEADERS)
        + "".join(f'_Static_assert({name} == {CODES[name]}u, "{name}");\n' for name in CODES)
    )
    checked = subprocess.run(["cc", "-fsyntax-only", source], stderr=subprocess.PIPE, check=False)
    assert checked.stderr.decode() == ""


@pytest.mark.parametrize("machine", CLOCK)
def test_other_machines(machine: str) -> None:
    read = ioctl_number("read", "p", 9, 36, machine)
    write = ioctl_number("write", "p", 10, 36, machine)
    assert (read, write) == CLOCK[machine]
    for direction, letter, code, size, number in SAME_EVERYWHERE.values():
        assert ioctl_number(direction, letter, code, size, machine) == number


@pytest.mark.parametrize("machine", NO_ARGUMENT)
def test_a_request_without_an_argument(machine: str) -> None:
    assert ioctl_number("none", "R", 7, 0, machine) == NO_ARGUMENT[machine]
