"""The two versions, in a module that imports nothing."""

__version__ = "0.2.0"

INTERFACE_VERSION = "11.1.3"
"""The QEMU release whose guest agent interface this is; guest-info reports it.

Clients compare it as N.N.N, each at most 255.
"""

PROGRAM = "qemu-ga"
"""What this program is called, in messages and in the journal."""
