"""Numbers of ioctl(2) requests, which differ between processors.

<asm/ioctl.h> of the kernel puts a number together from the direction of the data, the size of the
argument, a letter and a code.
"""

import os
from typing import Literal

Direction = Literal["none", "read", "write", "both"]
"""Whether the kernel fills in the argument, reads it, or does both; none without one."""

# In the headers for these processors the two directions are swapped. All but parisc have a third
# bit there: set for requests without an argument, unset for those with one of less than 8 KiB.
_SWAPPED = ("alpha", "mips", "parisc", "ppc", "sparc")


def ioctl_number(
    direction: Direction, letter: str, code: int, size: int, machine: str = os.uname().machine
) -> int:
    """The number of a request with an argument of `size` bytes.

    machine: the processor, as uname(2) names it.
    """
    read, write = (1, 2) if machine.startswith(_SWAPPED) else (2, 1)
    bits = {"none": 0, "read": read, "write": write, "both": read | write}[direction]
    if direction == "none" and machine.startswith(_SWAPPED) and not machine.startswith("parisc"):
        code |= 1 << 29
    return bits << 30 | size << 16 | ord(letter) << 8 | code
