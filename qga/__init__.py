"""The QEMU guest agent in Python: what a plugin imports.

from qga import CommandGroup, command

class Greetings(CommandGroup):
    @command(access="audit")
    def qga_greet(self, name: str) -> str:
        return f"Hello, {name}!"
"""

from __future__ import annotations

import importlib

from qga.version import INTERFACE_VERSION, __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qga.errors import CommandNotFound, QgaError
    from qga.plugin.registry import CommandGroup, command
    from qga.plugin.schema import NotRequired, UInt64
    from qga.policy.caller import Caller
    from qga.programs.child import Child
    from qga.task import stop_if_given_up, until_given_up
    from qga.wire.payload import Base64, Payload, c_string, decode_base64

__all__ = [
    "INTERFACE_VERSION",
    "Base64",
    "Caller",
    "Child",
    "CommandGroup",
    "CommandNotFound",
    "NotRequired",
    "Payload",
    "QgaError",
    "UInt64",
    "__version__",
    "c_string",
    "command",
    "decode_base64",
    "stop_if_given_up",
    "until_given_up",
]

# Loaded on demand: qgactl, which is in this package, does not need them.
_HOMES = {
    "Base64": "wire.payload",
    "Caller": "policy.caller",
    "Child": "programs.child",
    "CommandGroup": "plugin.registry",
    "CommandNotFound": "errors",
    "NotRequired": "plugin.schema",
    "Payload": "wire.payload",
    "QgaError": "errors",
    "UInt64": "plugin.schema",
    "c_string": "wire.payload",
    "command": "plugin.registry",
    "decode_base64": "wire.payload",
    "stop_if_given_up": "task",
    "until_given_up": "task",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"qga.{_HOMES[name]}"), name)
    return value
