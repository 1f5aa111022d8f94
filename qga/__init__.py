"""The QEMU guest agent in Python: what a plugin imports.

from qga import CommandGroup, command

class Greetings(CommandGroup):
    @command(access="audit")
    def qga_greet(self, name: str) -> str:
        return f"Hello, {name}!"
"""

from qga.errors import CommandNotFound, QgaError
from qga.plugin.registry import CommandGroup, command
from qga.plugin.schema import NotRequired, UInt64
from qga.policy.caller import Caller
from qga.programs.child import Child
from qga.task import stop_if_given_up, until_given_up
from qga.version import INTERFACE_VERSION, __version__
from qga.wire.payload import Payload, c_string, decode_base64

__all__ = [
    "INTERFACE_VERSION",
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
