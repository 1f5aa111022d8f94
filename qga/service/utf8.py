"""UTF-8 in any locale.

Python encodes paths, arguments and messages according to the locale. The host sends and expects
UTF-8, and the names that it sends must reach the kernel unchanged. So the agent uses Python's UTF-8
mode in other locales. The locale itself is kept for the programs that the host runs.
"""

from __future__ import annotations

import os
import sys

_COERCED = ("C.UTF-8", "C.utf8", "UTF-8")  # PEP 538


def use_utf8() -> None:
    """Restart in UTF-8 mode if necessary, and undo Python's coercion of the locale."""
    _forget_coerced_locale()
    if sys.getfilesystemencoding() == "utf-8":
        return
    try:
        with open("/proc/self/cmdline", "rb") as file:
            arguments = file.read().split(b"\0")[1:-1]
        again = [os.fsencode(sys.executable), b"-Xutf8", *arguments]
        os.execv(sys.executable, again)  # noqa: S606 - no shell is involved
    except OSError:  # no /proc: names with non-ASCII characters may not be found
        pass


def _forget_coerced_locale() -> None:
    """Remove LC_CTYPE from the environment if Python has set it, as it does in the C locale.

    /proc has the environment that the process was started with.
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
