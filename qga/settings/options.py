"""The command line of qemu-ga: the table of options, and a parser that works like getopt_long.

`OPTIONS` is the only place that defines options: --help, the manual page and the shell completions
are made from it. `scan` behaves like getopt_long(3), error messages included, because command lines
and scripts were written against it: abbreviated long options, joined short options, optional
arguments only if attached, operands anywhere, `--`.
"""

from __future__ import annotations

from qga.errors import ConfigError
from qga.records import NamedTuple
from qga.settings.config import (
    DEFAULT_CONFIG_PATH,
    DEFAULT_FSFREEZE_HOOK,
    DEFAULT_METHOD,
    DEFAULT_PATHS,
    DEFAULT_PIDFILE,
    DEFAULT_STATEDIR,
    GENERAL_KEYS,
    overlay,
)
from qga.version import PROGRAM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Optional

    from qga.settings.config import Layer

_HELP_INDENT = 29
_HELP_WIDTH = 79
_DEFAULT = "(default: "


class Option(NamedTuple):
    """One option. `metavar` "": it takes no argument; `help` "": it is left out of --help.

    `key` is the configuration key that it sets, or "". `default` is the value of an optional
    argument that is left out; None if the argument is not optional.
    """

    short: str
    long: str
    metavar: str
    key: str
    help: str
    default: Optional[str] = None


_WITH_PATH = ", ".join(f"{path} for {method}" for method, path in DEFAULT_PATHS.items() if path)

OPTIONS = (
    Option(
        "m",
        "method",
        "METHOD",
        "method",
        f"channel type: {', '.join(DEFAULT_PATHS)} (default: {DEFAULT_METHOD})",
    ),
    Option(
        "p",
        "path",
        "PATH",
        "path",
        f"device or socket path, or CID:PORT for vsock-listen (default: {_WITH_PATH})",
    ),
    Option(
        "l",
        "logfile",
        "PATH",
        "logfile",
        "log to this file (default: the journal, or standard error)",
    ),
    Option(
        "f",
        "pidfile",
        "PATH",
        "pidfile",
        f"PID file, always written with -d (default: {DEFAULT_PIDFILE})",
    ),
    # On one line: clients look for "fsfreeze-hook", and take the last word, less ")", for the path.
    Option(
        "F",
        "fsfreeze-hook",
        "PATH",
        "fsfreeze-hook",
        f"hook script (default: {DEFAULT_FSFREEZE_HOOK})",
        default=DEFAULT_FSFREEZE_HOOK,
    ),
    Option(
        "t",
        "statedir",
        "PATH",
        "statedir",
        f"directory for state that survives a restart (default: {DEFAULT_STATEDIR})",
    ),
    Option("v", "verbose", "", "verbose", "also log normal operation"),
    Option("V", "version", "", "", "print the version and exit"),
    Option("d", "daemonize", "", "daemon", "run in the background once the channel is open"),
    Option(
        "b",
        "block-rpcs",
        "LIST",
        "block-rpcs",
        "comma-separated commands to disable; 'help' lists all commands",
    ),
    Option("b", "blacklist", "LIST", "block-rpcs", ""),
    Option(
        "a",
        "allow-rpcs",
        "LIST",
        "allow-rpcs",
        "comma-separated commands to enable, disabling all others; --block-rpcs takes precedence",
    ),
    Option(
        "c",
        "config",
        "PATH",
        "",
        f"configuration file instead of $QGA_CONF (default: {DEFAULT_CONFIG_PATH})",
    ),
    Option("D", "dump-conf", "", "", "print the effective configuration and exit"),
    Option("r", "retry-path", "", "retry-path", "wait for a channel that does not exist yet"),
    Option(
        "",
        "explain-policy",
        "COMMAND",
        "",
        "show whether COMMAND would be allowed and which setting decides; exit with 0 if allowed, "
        "1 if not; arguments of COMMAND follow as KEY=VALUE or as a JSON object",
    ),
    Option("", "on-channel", "NAME", "", "channel for --explain-policy (default: main)"),
    Option(
        "",
        "doctor",
        "",
        "",
        "diagnose why the host gets no answer and suggest fixes; exit with 0 if all is well, 1 if "
        "not",
    ),
    Option("", "json", "", "", "print the output of --doctor as JSON"),
    Option("s", "", "COMMAND", "", ""),  # only for Windows services, but QEMU's agent accepts it
    Option("h", "help", "", "", "print this help and exit"),
)


class OptionError(ConfigError):
    """The command line is invalid; the text is that of getopt, without the program name."""


class Question(NamedTuple):
    """The arguments of --explain-policy: a command, its arguments as words, and the channel."""

    command: str
    words: tuple[str, ...]
    channel: str


class Arguments(NamedTuple):
    """A parsed command line.

    action: "serve", "version", "help", "list-commands", "dump-conf", "explain-policy" or "doctor".
    config_path: the argument of -c, or None.
    settings: the keys of [general] that options set.
    question: for --explain-policy.
    json: whether --doctor prints JSON.
    """

    action: str
    config_path: Optional[str]
    settings: Layer
    warnings: tuple[str, ...]
    question: Optional[Question] = None
    json: bool = False


def parse(argv: Sequence[str]) -> Arguments:
    """Parse a command line (`argv` does not contain the program name).

    -V and -h take effect at once: anything after them is ignored. Raises OptionError for a line
    that getopt rejects and ConfigError for an invalid value of an option.
    """
    action = "serve"
    config_path: Optional[str] = None
    settings: Layer = {}
    warnings: list[str] = []
    command, channel, words, json = "", "main", [], False
    for option, value in _read(argv):
        if option is None:
            words.append(value or "")
            continue
        if option.long in ("version", "help"):
            return Arguments(option.long, None, {}, ())
        if option.long in ("dump-conf", "doctor"):
            action = option.long
        elif option.long == "json":
            json = True
        elif option.long == "config":
            config_path = value
        elif option.long == "explain-policy":
            action, command = option.long, value or ""
        elif option.long == "on-channel":
            channel = value or ""
        elif option.short in ("a", "b") and value in ("help", "?"):
            action = "list-commands"
        elif option.key:
            settings = overlay(settings, _setting(option, value))
        if option.long == "blacklist":
            warnings.append("the option '--blacklist' is deprecated, use '--block-rpcs' instead")
    question = Question(command, tuple(words), channel) if action == "explain-policy" else None
    return Arguments(action, config_path, settings, tuple(warnings), question, json)


def scan(argv: Sequence[str]) -> Iterator[tuple[Option, Optional[str]]]:
    """The options of a command line in order, each with its argument or None.

    Operands are left out. Raises OptionError.
    """
    for option, value in _read(argv):
        if option is not None:
            yield option, value


def _read(argv: Sequence[str]) -> Iterator[tuple[Optional[Option], Optional[str]]]:
    """Like `scan`, including operands, for which the option is None."""
    words = iter(argv)
    for word in words:
        if word == "--":
            yield from ((None, operand) for operand in words)
        elif word.startswith("--"):
            yield _scan_long(word[2:], words)
        elif word.startswith("-") and word != "-":
            yield from _scan_short(word[1:], words)
        else:
            yield None, word


def format_help() -> str:
    """The text of --help."""
    lines = [
        f"Usage: {PROGRAM} [-m METHOD -p PATH] [OPTION]...",
        "Let the host manage this virtual machine.",
        "",
    ]
    for option in OPTIONS:
        if option.help:
            lines += _help_lines(option)
    return "\n".join(lines) + "\n"


def _setting(option: Option, value: Optional[str]) -> Layer:
    if value is None:
        return {option.key: True}
    try:
        return {option.key: GENERAL_KEYS[option.key](value)}
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _scan_long(word: str, words: Iterator[str]) -> tuple[Option, Optional[str]]:
    name, equals, attached = word.partition("=")
    option = _find_long(name, word)
    if not option.metavar:
        if equals:
            raise OptionError(f"option '--{option.long}' doesn't allow an argument")
        return option, None
    if equals:
        return option, attached
    if option.default is not None:
        return option, option.default
    value = next(words, None)
    if value is None:
        raise OptionError(f"option '--{option.long}' requires an argument")
    return option, value


def _find_long(name: str, word: str) -> Option:
    candidates = [option for option in OPTIONS if option.long and option.long.startswith(name)]
    for option in candidates:
        if option.long == name:
            return option
    if not candidates:
        raise OptionError(f"unrecognized option '--{word}'")
    # --block-rpcs and --blacklist are the same option, so that --bl is not ambiguous.
    if len({option.short or option.long for option in candidates}) > 1:
        possibilities = " ".join(f"'--{option.long}'" for option in candidates)
        raise OptionError(f"option '--{word}' is ambiguous; possibilities: {possibilities}")
    return candidates[0]


def _scan_short(letters: str, words: Iterator[str]) -> Iterator[tuple[Option, Optional[str]]]:
    while letters:
        letter, letters = letters[0], letters[1:]
        option = next((option for option in OPTIONS if option.short == letter), None)
        if option is None:
            raise OptionError(f"invalid option -- '{letter}'")
        if not option.metavar:
            yield option, None
            continue
        value = letters or option.default  # an optional argument counts only if it is attached
        if value is None:
            value = next(words, None)
        if value is None:
            raise OptionError(f"option requires an argument -- '{letter}'")
        yield option, value
        return


def _help_lines(option: Option) -> list[str]:
    from textwrap import wrap

    argument = option.metavar and f"={option.metavar}"
    if option.default is not None:
        argument = f"[{argument}]"
    short = f"-{option.short}, " if option.short else " " * len("-x, ")
    heading = f"  {short}--{option.long}{argument}"
    together = option.help.replace(_DEFAULT, _DEFAULT.replace(" ", "\0"))
    wrapped = wrap(together, _HELP_WIDTH - _HELP_INDENT, break_on_hyphens=False)
    lines = [line.replace("\0", " ") for line in wrapped]
    first = "" if len(heading) >= _HELP_INDENT else lines.pop(0)
    heading = f"{heading:<{_HELP_INDENT}}{first}".rstrip()
    return [heading, *(" " * _HELP_INDENT + line for line in lines)]
