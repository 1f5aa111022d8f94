"""Honest replies to all of our agent's commands, with every member that they may have.

They are made from the annotations of the agent's handlers, so new commands are included.
"""

from __future__ import annotations

import base64
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from qga.plugin import discovery
from qga.plugin.registry import commands_of
from qga.plugin.schema import is_struct, members
from qga.tunnels.frames import END, OPENED, WINDOW, credit_frame, frame

TEXT = "text"
DATA = base64.b64encode(TEXT.encode()).decode()

# Members that are base64, and those whose value has a meaning.
KNOWN: dict[str, Any] = {
    "buf-b64": DATA,
    "data": base64.b64encode(credit_frame(1, OPENED, WINDOW) + frame(1, END)).decode(),
    "out-data": DATA,
    "err-data": DATA,
    "out-total": len(TEXT),
    "err-total": len(TEXT),
    "out-offset": 0,
    "err-offset": 0,
    "count": len(TEXT),
    "signal": None,
    "exitcode": 0,
    "busy": False,
    "host-connected": False,
    "out-truncated": False,
    "err-truncated": False,
}

# A line of stat(1) for a regular file, which scripts of qgactl cp ask for.
STAT_LINE = base64.b64encode(b"81a4 4\n").decode()


@cache
def replies() -> dict[str, Any]:
    """The result of each command."""
    found = {
        name: value_of(get_type_hints(getattr(group, attribute), include_extras=True)["return"])
        for group in discovery.discover(None, print)
        for name, attribute, _ in commands_of(group)
    }
    found["guest-info"]["supported_commands"] = [
        {"name": name, "enabled": True, "success-response": True} for name in found
    ]
    found["guest-exec-status"]["out-data"] = STAT_LINE
    del found["guest-fstrim"]["paths"][0]["error"]
    # They are only asked after a freeze.
    found["guest-fsfreeze-status"] = found["qga-get-freeze"]["status"] = "frozen"
    return found


def value_of(annotation: Any, name: str = "") -> Any:
    """A value of a type that a handler returns; None for a member that is left out."""
    if name in KNOWN:
        return KNOWN[name]
    simple = {int: 1, str: TEXT, bool: True, float: 0.5, type(None): {}}
    if annotation in simple:
        return simple[annotation]
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return parts[0]
    if origin is list:
        return [value_of(parts[0])]
    if origin in (Union, Annotated):
        return value_of(parts[0])
    if is_struct(annotation):
        struct = {key: value_of(kind, key) for key, (kind, _) in members(annotation).items()}
        return {key: value for key, value in struct.items() if value is not None}
    return {}
