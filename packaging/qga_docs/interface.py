"""The interface as data: commands, configuration keys, and the two command lines.

An option or argument that takes a value says by its `kind` what may stand there:

    ""          nothing: a flag            file       a path
    any         whatever                   method     a method of the channel
    command     a command's name           commands   names with commas between them
    address     a guest: its name, unix:PATH, …
    remote      GUEST:PATH              copy       the same, or a path of this host
    choice      one of a few words
    arguments   NAME=, for each argument of the agent's command before it
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

from qga.plugin import discovery, schema
from qga.plugin.entry import INJECTED
from qga.plugin.registry import commands_of
from qga.settings import config, options
from qga.settings.dump import dump

KINDS_BY_METAVAR = {
    "PATH": "file",
    "FILE": "file",
    "SOURCE... DESTINATION": "copy",
    "PATH...": "remote",
    "METHOD": "method",
    "COMMAND": "command",
    "LIST": "commands",
    "GUEST": "address",
    "[GUEST]": "address",
    "[GUEST]...": "address",
}

# Of qgactl call, by the names of its parameters.
ARGUMENT_KINDS = {"arguments": "arguments"}

KEY_HELP = {
    "method": f"channel type: {', '.join(config.DEFAULT_PATHS)}",
    "path": "device or socket path, or CID:PORT for vsock-listen",
    "logfile": "log to this file instead of standard error or the journal; what the host has done "
    "is always logged to the journal or syslog",
    "pidfile": "write the process ID to this file; in the background the agent always does",
    "fsfreeze-hook": "script to run before a freeze and after a thaw, along with every executable "
    "in the directory of the same name plus .d",
    "fsfreeze-hook-timeout": "time limit in seconds for each freeze hook; a hook that takes longer "
    "is killed",
    "fsfreeze-exclude": "comma-separated patterns of mount points to leave unfrozen; a filesystem "
    "mounted in several places is skipped only if all of its mount points match",
    "freeze-timeout": "seconds after which the agent thaws filesystems that are still frozen; 0 "
    "for never",
    "fsfreeze-orphan-timeout": "seconds after which the agent ends a freeze whose client may have "
    "given up, unless a client calls guest-fsfreeze-status; 0 for never",
    "fsfreeze-reply-timeout": "seconds after which the client of a freeze may have given up, as "
    "libvirt does without notice; 0 if all clients wait",
    "command-timeout": "seconds after which a command that is still running is answered with an "
    "error; 0 for never; it does not apply to freezing and thawing",
    "statedir": "directory for state that survives a restart",
    "block-rpcs": "comma-separated commands to disable; a blocked command stays disabled even if "
    "it is allowed",
    "allow-rpcs": "comma-separated commands to enable, disabling all others; empty enables all",
    "profile": "trust in the host: audit, filesystem, file-read, file-write or unrestricted; each "
    "includes those before it",
    "allow-cids": "comma-separated vsock addresses that may connect to a vsock-listen channel; 2 "
    "is the host",
    "max-clients": "number of clients that a listening channel serves at the same time",
    "baud": "speed of a serial line",
    "plugin-dir": "directory with further commands, in files that only root can write to",
}
"""The purpose of each key; a key that is missing here has the help of its option."""

RULE_HELP = {
    "exec.allow": "programs that may be run, with patterns for their arguments, separated by "
    "semicolons",
    "exec.user": "user that programs run as, instead of the agent's own",
    "exec.users": "patterns of users that a request may choose, separated by semicolons; a request "
    "that names none runs as the user of the key user, or is refused if there is none",
    "exec.environment": "keep or drop the environment variables in a request; the default is drop "
    "if allow is set",
    "exec.terminal": "whether qga-exec may give a program a terminal; the default is false if "
    "allow is set, because pagers and editors can start a shell from one",
    "exec.timeout": "seconds after which a program is killed, with everything that it has started",
    "exec.memory": "bytes of memory that a program may use, with everything that it has started; "
    "the suffixes K, M and G are valid; this and the keys below apply to every request",
    "exec.cpu": "processors that a program may use on average; 0.5 for half of one",
    "exec.processes": "number of processes and threads of a program",
    "exec.cpu-seconds": "seconds of processor time for each process of a program",
    "exec.open-files": "number of file descriptors for each process of a program",
    "exec.file-size": "bytes of the largest file that a program may write",
    "exec.output": "bytes of output after which a program is killed",
    "files.read": "patterns of real paths that may be read, separated by semicolons",
    "files.write": "patterns of real paths that may be written, separated by semicolons",
    "files.follow-symlinks": "whether writing follows a symbolic link in the last component of a "
    "path",
    "accounts.allow": "patterns of users whose password or ssh keys may be changed, separated by "
    "semicolons",
    "connect.allow": "addresses with ports, and patterns of the real paths of unix sockets, that "
    "qga-connect may connect to, separated by semicolons",
    "limits.handles": "number of open files; by default 1024, or fewer if the system allows fewer",
    "limits.children": "number of programs that run at the same time",
    "limits.captured": "bytes of program output kept in memory; the suffixes K, M and G are valid",
    "limits.stdin": "bytes of input that programs have not read yet",
    "limits.message": "bytes of a request",
    "limits.threads": "number of commands that run at the same time in the whole agent; half of "
    "them are divided equally among the channels",
}
"""The purpose of each key in the sections of rules."""

EXAMPLES = {
    "exec.allow": "/usr/bin/systemctl restart nginx.service; /usr/bin/df ...",
    "exec.user": "nobody",
    "exec.users": "ci-*; nobody",
    "exec.environment": "drop",
    "exec.terminal": "false",
    "exec.timeout": "60",
    "exec.memory": "512M",
    "exec.cpu": "0.5",
    "exec.processes": "100",
    "exec.cpu-seconds": "60",
    "exec.open-files": "256",
    "exec.file-size": "1G",
    "exec.output": "64M",
    "files.read": "/etc/*.conf; /var/log/",
    "files.write": "/srv/upload/**",
    "accounts.allow": "web-*",
    "connect.allow": "127.0.0.1:22; unix:/run/docker.sock",
    "limits.handles": "64",
    "limits.children": "8",
    "logfile": "/var/log/qemu-ga.log",
    "pidfile": config.DEFAULT_PIDFILE,
    "fsfreeze-hook": config.DEFAULT_FSFREEZE_HOOK,
    "plugin-dir": f"{config.CONFIG_DIR}/qga-plugins",
}
"""An example value for each key that has no default."""


class CommandInfo(NamedTuple):
    """A command of the agent; `arguments` are `name`, or `[name]` if optional."""

    name: str
    arguments: tuple[str, ...]
    access: str
    blocking: bool
    frozen: bool
    summary: str


class Group(NamedTuple):
    title: str
    commands: list[CommandInfo]


class Key(NamedTuple):
    """A configuration key. If `default` is None, `example` is set."""

    name: str
    help: str
    default: str | None
    example: str


class Option(NamedTuple):
    """An option of a program: `flags` as they are typed, what it is for, what it takes."""

    flags: tuple[str, ...]
    metavar: str
    kind: str
    help: str
    optional_value: bool = False
    default: str = ""


class Argument(NamedTuple):
    """What may stand behind the options, `many`: any number of it; `choices` of that kind."""

    name: str
    kind: str
    help: str
    many: bool = False
    choices: tuple[str, ...] = ()


class Program(NamedTuple):
    """A program, or a command of one; `help` is its whole text, `summary` the first sentence."""

    name: str
    summary: str
    help: str
    options: list[Option]
    arguments: list[Argument]
    commands: list[Program]
    usage: str = ""
    section: str = ""


def groups() -> list[Group]:
    """The standard commands, by their groups."""
    found = discovery.discover(None, print)
    return [
        Group(_first_paragraph(group).rstrip("."), [_command(group, *rest) for rest in entries])
        for group in found
        if group.__module__.startswith("qga.commands.") and (entries := list(commands_of(group)))
    ]


def commands() -> list[CommandInfo]:
    """The standard commands, by name."""
    return sorted(command for group in groups() for command in group.commands)


def general_keys() -> list[Key]:
    """The keys of [general]."""
    helps = {option.key: option.help for option in options.OPTIONS if option.help} | KEY_HELP
    dumped = dump(config.build({}, ())).splitlines()
    defaults = dict(line.split("=", 1) for line in dumped if "=" in line)
    return [
        Key(name, helps[name], defaults.get(name), EXAMPLES.get(name, ""))
        for name in config.GENERAL_KEYS
    ]


def rule_keys() -> dict[str, list[Key]]:
    """The keys of each section of rules."""
    return {
        section: [_rule_key(section, name) for name in keys]
        for section, keys in config.RULE_KEYS.items()
    }


def _rule_key(section: str, name: str) -> Key:
    key = f"{section}.{name}"
    default = config.DEFAULTS[key.replace(".", "_").replace("-", "_")]
    text = None if default is None else str(default).lower()
    return Key(name, RULE_HELP[key], text, EXAMPLES.get(key, ""))


def qemu_ga() -> Program:
    """The agent's command line."""
    found = [
        Option(
            (*([f"-{option.short}"] if option.short else []), f"--{option.long}"),
            option.metavar,
            KINDS_BY_METAVAR.get(option.metavar, "any") if option.metavar else "",
            option.help,
            option.default is not None,
        )
        for option in options.OPTIONS
        if option.help
    ]
    return Program("qemu-ga", "QEMU guest agent", "", found, [], [])


def qgactl() -> Program:
    """The command line of the host's side."""
    import typer.main

    from qga.ctl.cli import app

    return _program("qgactl", typer.main.get_command(app))


def _command(group: type, name: str, attribute: str, traits: Any) -> CommandInfo:
    handler = inspect.getattr_static(group, attribute)
    described = schema.signature(handler, INJECTED).describe()["arguments"]
    arguments = tuple(f"[{key[1:]}]" if key.startswith("*") else key for key in described)
    summary = _first_paragraph(handler)
    return CommandInfo(
        name, arguments, traits.access, bool(traits.blocking), traits.frozen, summary
    )


def _first_paragraph(described: Any) -> str:
    text = inspect.getdoc(described) or ""
    return " ".join(text.partition("\n\n")[0].split())


def _program(name: str, command: Any) -> Program:
    found, arguments = [], []
    for parameter in command.params:
        if parameter.param_type_name == "option":
            found.append(_option(parameter))
        else:
            arguments.append(_argument(parameter))
    found.append(Option(("-h", "--help"), "", "", "Show help and exit."))
    text = inspect.cleandoc(command.help or "")
    commands = getattr(command, "commands", {}).items()
    inner = [_program(key, value) for key, value in commands if not value.hidden]
    summary = " ".join(text.partition("\n\n")[0].split())
    place = getattr(command, "place", None)
    usage = [
        argument.name
        if argument.name.startswith("[") or parameter.required
        else f"[{argument.name}]"
        for argument, parameter in zip(arguments, filter(is_argument, command.params))
    ]
    if place and place.metavar:
        arguments.insert(0, Argument("[GUEST]", "address", place.help))
    words = ["qgactl", name, "[OPTIONS]", place.metavar if place else "", *usage]
    section = getattr(command, "rich_help_panel", None) or ""
    return Program(
        name, summary, text, found, arguments, inner, " ".join(filter(None, words)), section
    )


def _option(parameter: Any) -> Option:
    metavar = "" if getattr(parameter, "is_flag", False) else _metavar(parameter)
    kind = KINDS_BY_METAVAR.get(metavar, "any") if metavar else ""
    kind = "choice" if "|" in metavar else kind
    default = getattr(parameter.default, "value", parameter.default)
    shown = f"Default: {default}." if metavar and default not in (None, "", "-") else ""
    return Option(tuple(parameter.opts), metavar, kind, parameter.help or "", default=shown)


def is_argument(parameter: Any) -> bool:
    """Whether a parameter of click is no option."""
    return bool(parameter.param_type_name == "argument")


def _argument(parameter: Any) -> Argument:
    metavar, many = _metavar(parameter), parameter.nargs < 0
    choices = tuple(metavar.split("|")) if "|" in metavar else ()
    kind = "choice" if choices else KINDS_BY_METAVAR.get(metavar, "any")
    kind = ARGUMENT_KINDS.get(parameter.name, kind)
    return Argument(metavar, kind, parameter.help or "", many, choices)


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())
