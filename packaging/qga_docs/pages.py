"""The manual pages qemu-ga(8) and qemu-ga.conf(5)."""

from __future__ import annotations

from collections.abc import Iterator

from qga.settings import config
from qga.version import INTERFACE_VERSION, __version__

from . import interface, roff
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
        "qemu-ga runs in a virtual machine and carries out what its host asks for over a "
        "virtio-serial port, a serial line or a socket: it tells about the system, reads and "
        "writes files, runs programs, freezes filesystems for a snapshot. Its interface is that "
        f"of QEMU {INTERFACE_VERSION}."
    )
    yield roff.paragraph(
        "Who can speak to the port is root in this machine, unless the configuration says "
        "otherwise: see allow-rpcs and block-rpcs."
    )
    yield roff.heading("Options")
    for option in program.options:
        yield option_item(option)
    yield roff.paragraph(
        "The options are laid over the configuration file; lists of commands add up."
    )
    yield roff.heading("Commands")
    yield roff.paragraph(
        "The access is the least that a host must be trusted with for a command; f: it is also "
        "carried out while filesystems are frozen."
    )
    for command in interface.commands():
        tag = f"{roff.bold(command.name)} {roff.italic(' '.join(command.arguments))}".rstrip()
        traits = command.access + (", f" if command.frozen else "")
        yield roff.item(tag, f"{command.summary} ({traits})")
    yield roff.heading("Signals")
    yield roff.item(
        roff.bold("SIGTERM, SIGINT"),
        "End the agent; not while filesystems are frozen, for nobody else would thaw them.",
    )
    yield roff.item(roff.bold("SIGHUP"), "Open the log file anew.")
    yield roff.heading("Exit status")
    yield roff.item("0", "It was asked to end. With -d: the agent serves, in the background.")
    yield roff.item(
        "1",
        "It could not start; the reason is on standard error. With --explain-policy: the command "
        "would be refused. With --doctor: not all is well.",
    )
    yield roff.heading("Environment")
    yield roff.item(roff.bold("QGA_CONF"), "The configuration file where -c is not given.")
    yield roff.heading("Files")
    yield roff.item(roff.italic(config.DEFAULT_CONFIG_PATH), "Configuration: see qemu-ga.conf(5).")
    yield roff.item(
        roff.italic(f"{config.DEFAULT_FSFREEZE_HOOK}.d"),
        "With -F, every executable in it is called with freeze, and with thaw in reverse.",
    )
    yield roff.item(
        roff.italic(f"{config.DEFAULT_STATEDIR}/qga.state"),
        "The number of the next file handle; with .isfrozen behind its name the marker that an "
        "agent started anew knows the frozen state by.",
    )
    yield roff.item(
        roff.italic("qemu-guest-agent.service"),
        "The unit of systemd, started when the host's port appears. DAEMON_ARGS in the file that "
        "it names as EnvironmentFile holds more options.",
    )
    yield roff.heading("See also")
    yield f"{roff.bold('qemu-ga.conf')}(5), {roff.bold('qgactl')}(1)"


def _qemu_ga_conf(date: str) -> Iterator[str]:
    yield roff.page("qemu-ga.conf", 5, date, __version__, "configuration of the QEMU guest agent")
    yield roff.heading("Synopsis")
    yield f".I {roff.escape(config.DEFAULT_CONFIG_PATH)}"
    yield roff.heading("Description")
    yield roff.paragraph(
        "qemu-ga(8) reads this file when it starts. It has sections, and keys with values in "
        "them; a line that begins with # is a comment. Options of the command line replace what "
        "is written here, and add to the lists of commands."
    )
    yield roff.paragraph(
        "A value that is wrong stops the agent and is named with its line. A key or section that "
        "it does not know is ignored with a warning. `qemu-ga --dump-conf` prints what results "
        "from file and options, as a file."
    )
    yield roff.heading("Keys of [general]")
    yield from map(_key, interface.general_keys())
    yield roff.heading("Further channels")
    yield roff.paragraph(
        "A section [channel NAME] adds a channel, served beside the first. Of these keys, method "
        "and path are its own; the others are those of [general] where it does not have them."
    )
    for name in config.CHANNEL_KEYS:
        yield f".TP\n{roff.bold(name)}"
    yield roff.heading("Rules")
    yield roff.paragraph(
        "Without rules everything is allowed that the profile and the lists of commands allow. A "
        "section [files NAME] holds for the channel NAME; what it leaves out is that of [files]. "
        "So it is with the others. A key in them that the agent does not know stops it."
    )
    for section, keys in interface.rule_keys().items():
        yield roff.subheading(f"Keys of [{section}]")
        yield from map(_key, keys)
    yield roff.heading("Example")
    yield roff.literal(
        "[general]\nblock-rpcs=guest-exec\n\n[channel monitoring]\nmethod=virtio-serial\n"
        "path=/dev/virtio-ports/com.example.monitoring\n"
        "allow-rpcs=guest-sync,guest-sync-delimited,guest-ping,guest-get-osinfo"
    )
    yield roff.heading("See also")
    yield f"{roff.bold('qemu-ga')}(8)"


def option_item(option: Option) -> str:
    """An option and its help, with its default."""
    tag = ", ".join(map(roff.bold, option.flags))
    if option.metavar:
        value = f"={roff.italic(option.metavar)}"
        tag += f"[{value}]" if option.optional_value else value
    return roff.item(tag, f"{sentence(option.help)} {option.default}".rstrip())


def _key(key: interface.Key) -> str:
    default = f"Default: {key.default or 'empty'}." if key.default is not None else "Not set."
    return roff.item(roff.bold(key.name), f"{sentence(key.help)} {default}")


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return text[:1].upper() + text[1:].rstrip(".") + "."
