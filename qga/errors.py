"""What can go wrong, as one tree.

Exception
├── QgaError             the answer to a request: a QMP error class and a description
│   ├── CommandNotFound  no such command, or none for this host; clients skip on this class
│   │   └── CommandDisabled  the policy refuses the whole command
│   └── Refused          the policy refuses what the arguments ask for
├── ConfigError          the command line or the configuration file is wrong
├── NotYet               another command must end before this one can be carried out
├── PluginError          a command group cannot be taken in
└── ChannelError         a channel cannot be opened
"""

from __future__ import annotations


class QgaError(Exception):
    """An error reply. Handlers raise it; anything else they raise is a fault of the handler.

    `desc` is the text the host sees. Errors of the operating system belong into it by their
    own text, as in `failed to open file '/x' (mode: 'r'): No such file or directory`.
    """

    error_class = "GenericError"

    def __init__(self, desc: str) -> None:
        super().__init__(desc)
        self.desc = str(desc)


class CommandNotFound(QgaError):
    """The command is unknown, unavailable in this guest, or refused as a whole."""

    error_class = "CommandNotFound"


class CommandDisabled(CommandNotFound):
    """The channel's policy refuses the whole command; `rule` is the line that decides."""

    def __init__(self, desc: str, rule: str = "") -> None:
        super().__init__(desc)
        self.rule = rule


class Refused(QgaError):
    """The channel's policy refuses what the arguments ask for; `rule` is the line that decides.

    The host is told the command's name before `desc`. `detail` is for the log, and not for
    the host.
    """

    def __init__(self, desc: str, rule: str = "", detail: str = "") -> None:
        super().__init__(desc)
        self.rule = rule
        self.detail = detail


class NotYet(Exception):
    """Raised by a handler on the loop, to be called again after `Agent.try_again`."""


class ConfigError(Exception):
    """The command line or the configuration file is wrong; the text says where and how."""


class PluginError(Exception):
    """A plugin or a command group cannot be taken in; the text names it and says why."""


class ChannelError(Exception):
    """A channel cannot be opened; the text names its path and says why."""
