"""The manual pages qemu-ga(8) and qemu-ga.conf(5)."""

from __future__ import annotations

from collections.abc import Iterator

from qga.settings import config
from qga.version import INTERFACE_VERSION, __version__

from . import examples, interface, roff
from .interface import Option


def qemu_ga(date: str) -> str:
    """The agent's page."""
    return roff.join(_qemu_ga(date))


def qemu_ga_conf(date: str) -> str:
    """The page of its configuration file."""
    return roff.join(_qemu_ga_conf(date))


def _qemu_ga(date: str) -> Iterator[str]:
    program = interface.qemu_ga()
    yield roff.page("qemu-ga", 8, date, __version__, program.summary)
    yield roff.heading("Synopsis")
    yield f".B qemu\\-ga\n[{roff.bold('-m')} {roff.italic('METHOD')}"
    yield f"{roff.bold('-p')} {roff.italic('PATH')}] [{roff.italic('OPTION')}]..."
    yield roff.heading("Description")
    yield roff.paragraph(
        "qemu-ga runs in a virtual machine and executes commands of its host, which it receives "
        "over a virtio-serial port, a serial line or a socket. It reports system information, "
        "reads and writes files, runs programs, and freezes filesystems for a snapshot. It is "
        f"compatible with the guest agent of QEMU {INTERFACE_VERSION}."
    )
    yield roff.paragraph(
        "Anyone with access to the port effectively has root access to this machine, unless the "
        "configuration restricts it: see qemu-ga.conf(5)."
    )
    yield roff.heading("Options")
    for option in program.options:
        yield option_item(option)
    yield roff.paragraph(
        "Command-line options override the configuration file. Lists of commands are merged."
    )
    yield roff.heading("Commands")
    yield roff.paragraph(
        "For each command, the parentheses contain the lowest profile that allows it, and f if it "
        "is also available while filesystems are frozen."
    )
    for command in interface.commands():
        tag = f"{roff.bold(command.name)} {roff.italic(' '.join(command.arguments))}".rstrip()
        traits = command.access + (", f" if command.frozen else "")
        yield roff.item(tag, f"{command.summary} ({traits})")
    yield roff.heading("Signals")
    yield roff.item(
        roff.bold("SIGTERM, SIGINT"),
        "Shut down. Ignored while filesystems are frozen, because nothing else would thaw them.",
    )
    yield roff.item(roff.bold("SIGHUP"), "Reopen the log file.")
    yield roff.heading("Exit status")
    yield roff.item("0", "Normal shutdown. With -d: the agent is running in the background.")
    yield roff.item(
        "1",
        "The agent could not start; the reason is on standard error. With --explain-policy: the "
        "command would be refused. With --doctor: something is wrong.",
    )
    yield roff.heading("Environment")
    yield roff.item(roff.bold("QGA_CONF"), "The configuration file, unless -c is given.")
    yield roff.item(
        roff.bold("LISTEN_FDS, LISTEN_PID"),
        "A listening socket from the service manager (sd_listen_fds(3)). It replaces the method "
        "and the path of the main channel.",
    )
    yield roff.heading("Files")
    yield roff.item(roff.italic(config.DEFAULT_CONFIG_PATH), "Configuration: see qemu-ga.conf(5).")
    yield roff.item(
        roff.italic(f"{config.DEFAULT_FSFREEZE_HOOK}.d"),
        "With -F, every executable in this directory is run with the argument freeze, and in "
        "reverse order with thaw.",
    )
    yield roff.item(
        roff.italic(f"{config.DEFAULT_STATEDIR}/qga.state"),
        "The number of the next file handle. qga.state.isfrozen exists while filesystems are "
        "frozen, so that a restarted agent knows it.",
    )
    yield roff.item(
        roff.italic("qemu-guest-agent.service"),
        "The systemd unit, which is started when the host's port appears. Options can be set as "
        "DAEMON_ARGS in the file of its EnvironmentFile= setting.",
    )
    yield roff.heading("Diagnostics")
    yield roff.paragraph(
        "Warnings and errors go to the journal under systemd, otherwise to standard error, or to "
        "the file of --logfile. Every command that changes something and every refused request is "
        "logged to the journal or to syslog, or to standard error if there is neither. Messages "
        "that occur while filesystems are frozen are written after the thaw."
    )
    yield roff.heading("Examples")
    for text, lines in examples.COMMAND_LINES:
        yield roff.paragraph(text)
        yield roff.literal(lines)
    yield roff.heading("See also")
    yield f"{roff.bold('qemu-ga.conf')}(5), {roff.bold('qgactl')}(1)"


def _qemu_ga_conf(date: str) -> Iterator[str]:
    yield roff.page("qemu-ga.conf", 5, date, __version__, "configuration of the QEMU guest agent")
    yield roff.heading("Synopsis")
    yield f".I {roff.escape(config.DEFAULT_CONFIG_PATH)}"
    yield roff.heading("Description")
    yield roff.paragraph(
        "qemu-ga(8) reads this file when it starts. The file consists of sections that contain "
        "KEY=VALUE lines. Lines that begin with # are comments. There are no quotes around values "
        "and no continuation lines. In values, \\s, \\t, \\n, \\r and \\\\ stand for a space, a "
        "tab, a newline, a carriage return and a backslash. Command-line options override the "
        "file; lists of commands are merged."
    )
    yield roff.paragraph(
        "An invalid value stops the agent; the message gives the line number. So does an unknown "
        "key or section that seems to be about rules. Other unknown keys and sections cause a "
        "warning. `qemu-ga --dump-conf` prints the effective configuration in the format of the "
        "file."
    )
    yield roff.paragraph("The agent refuses a file that anyone other than root can write to.")
    yield roff.heading("Keys of [general]")
    yield from map(_key, interface.general_keys())
    yield roff.heading("Further channels")
    yield roff.paragraph(
        "A section [channel NAME] adds a channel. It may contain the keys below. Method and path "
        "have the usual defaults; other keys that are left out are inherited from [general]."
    )
    for name in config.CHANNEL_KEYS:
        yield f".TP\n{roff.bold(name)}"
    yield roff.heading("Rules")
    yield roff.paragraph(
        "Rules restrict the arguments of commands that the profile and the lists of commands "
        "allow. A section such as [files] applies to all channels, and [files NAME] only to the "
        "channel NAME; keys that the latter leaves out are inherited from the former. A missing "
        "key allows everything, an empty one nothing. An exception: if one of read and write is "
        "set, the other one defaults to nothing. The keys allow, read and write may be "
        "repeated; their values are combined. See PATTERNS for the syntax."
    )
    for section, keys in interface.rule_keys().items():
        yield roff.subheading(f"Keys of [{section}]")
        yield from map(_key, keys)
    yield from _patterns()
    yield roff.heading("Examples")
    for text, lines in examples.CONFIGURATIONS:
        yield roff.paragraph(text)
        yield roff.literal(lines)
    yield roff.heading("See also")
    yield f"{roff.bold('qemu-ga')}(8)"


def _patterns() -> Iterator[str]:
    yield roff.heading("Patterns")
    yield roff.paragraph(
        "A pattern must match the whole text. Patterns for files and programs are matched against "
        "real paths, without symbolic links and .., and must begin with /."
    )
    yield roff.subheading("Paths, in [files] read and write")
    for pattern in examples.PATHS:
        yield _pattern(pattern)
    yield roff.subheading("Programs, in [exec] allow")
    yield roff.paragraph(
        "A rule is a pattern for the path of the program, followed by a pattern for each argument, "
        "separated by spaces."
    )
    for pattern in examples.PROGRAMS:
        yield _pattern(pattern)
    yield roff.subheading("Names, in [accounts] allow")
    yield roff.paragraph("The same wildcards as in paths; * and ? match any character.")
    yield roff.subheading("Services, in [connect] allow")
    yield roff.paragraph(
        "An address or network, a colon, and a port, a range of ports or *, such as "
        "127.0.0.1:22, 10.0.0.0/8:8000-8100, [::1]:80 or *:443; or unix: and a pattern for the "
        "path of a socket. Names are not valid: the address that a name has is checked."
    )
    yield roff.subheading("Mount points, in fsfreeze-exclude")
    yield roff.paragraph(
        "The wildcards of the shell, but * and ? match any character, also /. Patterns are "
        "separated by commas."
    )


def _pattern(pattern: examples.Pattern) -> str:
    text = f"{sentence(pattern.meaning)} It matches {pattern.yes}, but not {pattern.no}."
    return roff.item(roff.bold(pattern.text), text)


def option_item(option: Option) -> str:
    """An option and its help, with its default."""
    tag = ", ".join(map(roff.bold, option.flags))
    if option.metavar:
        value = f"={roff.italic(option.metavar)}"
        tag += f"[{value}]" if option.optional_value else value
    return roff.item(tag, f"{sentence(option.help)} {option.default}".rstrip())


def _key(key: interface.Key) -> str:
    default = "none" if key.default is None else key.default or "empty"
    return roff.item(roff.bold(key.name), f"{sentence(key.help)} Default: {default}.")


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return text[:1].upper() + text[1:].rstrip(".") + "."
