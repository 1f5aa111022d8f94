#!/usr/bin/env python3
"""Update the list of commands in systemd/hardened.conf.

    python packaging/hardened.py

writes the names of all standard commands with `audit` access into the drop-in.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
DROP_IN = CHECKOUT / "systemd" / "hardened.conf"

_LIST = re.compile(r"(?<=--allow-rpcs=)[a-z,-]*")


def audit_commands() -> list[str]:
    """Names of the standard commands with `audit` access."""
    from qga.plugin.discovery import discover
    from qga.plugin.registry import commands_of

    groups = discover(None, sys.exit)
    return sorted(
        name
        for group in groups
        for name, _, traits in commands_of(group)
        if traits.access == "audit" and group.__module__.startswith("qga.commands.")
    )


def current(text: str) -> str:
    """The text of the drop-in with an up-to-date list."""
    return _LIST.sub(",".join(audit_commands()), text)


if __name__ == "__main__":
    sys.path.insert(0, str(CHECKOUT))
    DROP_IN.write_text(current(DROP_IN.read_text()))
