"""UTF-8 to the host and bytes to the kernel, whatever the locale.

Python encodes paths, arguments and messages as the locale has it. The host sends and expects
UTF-8, and the names that it sends are to reach the kernel as they are. So the agent runs in
Python's UTF-8 mode wherever the locale is another. The locale itself stays the administrator's,
for the programs that the host runs.
"""

from __future__ import annotations

import os
import sys

_COERCED = ("C.UTF-8", "C.utf8", "UTF-8")  # PEP 538


def use_utf8() -> None:
    """Start over in UTF-8 mode where that is needed; forget the locale that Python has chosen."""
    _forget_coerced_locale()
    if sys.getfilesystemencoding() == "utf-8":
        return
    try:
        with open("/proc/self/cmdline", "rb") as file:
            arguments = file.read().split(b"\0")[1:-1]
        again = [os.fsencode(sys.executable), b"-Xutf8", *arguments]
        os.execv(sys.executable, again)  # noqa: S606 - there is no shell to be had
    except OSError:  # no /proc: names beyond ASCII may not be found then
        pass


def _forget_coerced_locale() -> None:
    """Take LC_CTYPE out of the environment if it was Python that put it there.

    It does so where the locale is C. /proc has the environment that we were started with.
    """
    if os.environ.get("LC_CTYPE") not in _COERCED:
        return
    try:
        with open("/proc/self/environ", "rb") as file:
            given = file.read().split(b"\0")
    except OSError:
        return
    if not any(variable.startswith(b"LC_CTYPE=") for variable in given):
        del os.environ["LC_CTYPE"]
