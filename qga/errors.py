"""What can go wrong, as one tree.

Exception
├── QgaError             the answer to a request: a QMP error class and a description
│   ├── CommandNotFound  no such command, or not for this host; clients then try another way
│   │   └── CommandDisabled  the policy refuses the whole command
│   └── Refused          the policy refuses what the arguments ask for
├── ConfigError          the command line or the configuration file is invalid
├── NotYet               another command must finish before this one can be carried out
├── PluginError          a command group cannot be loaded
└── ChannelError         a channel cannot be opened
"""

from __future__ import annotations


class QgaError(Exception):
    """An error reply. Handlers raise it; any other exception is an error in the handler.

    `desc` is the text that the host sees. It ends with the operating system's own text if there is
    one, as in `failed to open file '/x' (mode: 'r'): No such file or directory`.
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

    The host sees the command's name before `desc`. `detail` goes to the log, not to the host.
    """

    def __init__(self, desc: str, rule: str = "", detail: str = "") -> None:
        super().__init__(desc)
        self.rule = rule
        self.detail = detail


class NotYet(Exception):
    """Raised by a handler on the loop, to be called again after `Agent.try_again`."""


class ConfigError(Exception):
    """The command line or the configuration file is invalid; the text says where and why."""


class PluginError(Exception):
    """A plugin or a command group cannot be loaded; the text says which and why."""


class ChannelError(Exception):
    """A channel cannot be opened; the text contains its path and the reason."""
