#!/usr/bin/env python3
"""Keep the commands in systemd/hardened.conf in step with the registry.

    python packaging/hardened.py

writes into the drop-in what the standard commands whose access is `audit` are called.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
DROP_IN = CHECKOUT / "systemd" / "hardened.conf"

_LIST = re.compile(r"(?<=--allow-rpcs=)[a-z,-]*")


def audit_commands() -> list[str]:
    """The standard commands of any guest that a host needs no more than `audit` for."""
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
    """The drop-in's text with the list as it should be."""
    return _LIST.sub(",".join(audit_commands()), text)


if __name__ == "__main__":
    sys.path.insert(0, str(CHECKOUT))
    DROP_IN.write_text(current(DROP_IN.read_text()))
