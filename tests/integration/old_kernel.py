"""Runs a program as on an older kernel, or under a container's system call filter:

    old_kernel.py CALL=ERRNO... -- PROGRAM ARGUMENT...

CALL is the name of a system call, or `new` for all that Linux 4.18 does not have. ERRNO is a name
such as ENOSYS, or 0 for a call that returns 0 without doing anything. Processes that the program
starts are affected as well.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

FIRST_NEW = 403
"""Since Linux 5.1 new system calls have the same number on every architecture, from this one on."""

OLDER = {
    "memfd_create": {"x86_64": 319, "aarch64": 279},
    "copy_file_range": {"x86_64": 326, "aarch64": 285},
    "preadv2": {"x86_64": 327, "aarch64": 286},
}
NEW = {"pidfd_send_signal": 424, "pidfd_open": 434, "close_range": 436, "openat2": 437}

CALLS = (*OLDER, *NEW)
"""Newer calls that the agent, or Python, uses if they exist."""

# <linux/seccomp.h>, <linux/prctl.h>, <linux/bpf_common.h>
ALLOW, FAIL = 0x7FFF0000, 0x00050000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_EQUAL, JUMP_GREATER_OR_EQUAL, RETURN = 0x20, 0x15, 0x35, 0x06


def number_of(call: str) -> int:
    return NEW.get(call) or OLDER[call][platform.machine()]


def instructions(rules: dict[str, int]) -> list[tuple[int, int, int, int]]:
    """A classic BPF program for struct seccomp_data; instructions are code, jt, jf, k."""
    program = [(LOAD, 0, 0, 0)]  # the number of the call
    for call, code in rules.items():
        jump, number = JUMP_EQUAL, 0
        if call == "new":
            jump, number = JUMP_GREATER_OR_EQUAL, FIRST_NEW
        program += [(jump, 0, 1, number or number_of(call)), (RETURN, 0, 0, FAIL | code)]
    return [*program, (RETURN, 0, 0, ALLOW)]


def apply(rules: dict[str, int]) -> None:
    """Make these calls fail from now on, in this process and all that it starts."""
    program = instructions(rules)
    code = b"".join(struct.pack("HBBI", *each) for each in program)
    text = ctypes.create_string_buffer(code)
    program_text = ctypes.create_string_buffer(
        struct.pack("HP", len(program), ctypes.addressof(text))
    )
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program_text), 0, 0),
    ):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main(arguments: list[str]) -> None:
    end = arguments.index("--")
    pairs = (argument.split("=") for argument in arguments[:end])
    apply({call: getattr(errno, name, 0) for call, name in pairs})
    os.execvp(arguments[end + 1], arguments[end + 1 :])


if __name__ == "__main__":
    main(sys.argv[1:])
