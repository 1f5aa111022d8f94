"""The manual page qgactl(1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from qga.ctl.command import SECTIONS
from qga.version import __version__

from . import interface, roff
from .interface import Program
from .pages import option_item

ENVIRONMENT = {
    "QGA_CONNECT": "The guest of commands that name none, as with --connect.",
    "QGA_DATA_PORT": "Sockets of data ports, as NAME=SOCKET with spaces between them.",
    "QGA_HOST_ROOT": "Where the host's / is mounted, to look for its guests from a container.",
    "LIBVIRT_DEFAULT_URI": "The URI of libvirt in libvirt:DOMAIN, as for virsh.",
    "NO_COLOR": "If set and not empty, print without colors.",
    "XDG_CONFIG_HOME": "The directory of the user's configuration file (default: ~/.config).",
}

FILES = {
    "~/.config/qgactl.toml": "Configuration of the user: names for addresses, and a default guest.",
    "/etc/qgactl.toml": "Configuration of the system, for what the user's file leaves out. "
    "Both are refused if anyone other than root and the user can write to them.",
}

EXAMPLE = """\
[default]
connect = "web"

[guests]
web = "unix:/run/vm/web.sock"
backup = "libvirt:qemu+ssh://root@host2/system/backup\""""

STATUSES = {
    "0": "Success.",
    "1": "The command failed in the guest, or its reply was invalid.",
    "2": "Wrong usage.",
    "3": "No connection to the agent.",
    "4": "The agent did not answer in time.",
    "130": "Interrupted.",
    "124, 125, 126, 127": "exec, shell and freeze exit with the status of the program, or with 128 "
    "and the number of the signal that killed it. 124: exec --timeout was exceeded. 125: qgactl or "
    "the agent failed. 126, 127: the command of freeze cannot be run, or was not found.",
}


def qgactl(date: str) -> str:
    """The page of the host's program."""
    return roff.join(_page(interface.qgactl(), date))


def _page(program: Program, date: str) -> Iterator[str]:
    yield roff.page("qgactl", 1, date, __version__, "talk to QEMU guest agents from the host")
    yield roff.heading("Synopsis")
    yield f".B qgactl\n[{roff.italic('OPTIONS')}]"
    yield f"{roff.italic('COMMAND')} [{roff.italic('ARGS')}]..."
    yield roff.heading("Description")
    yield from _click_text(program.help.partition("\n\n\b\nExit status")[0])
    yield roff.paragraph(
        "The guest is the first word after the command; with exec, shell and freeze the word "
        "before --; with cp and cat the word before a colon. Otherwise it is that of --connect, "
        "QGA_CONNECT, or the default of the configuration file, in this order."
    )
    yield roff.heading("Options")
    yield roff.paragraph("These are accepted before and after the command.")
    yield from map(option_item, program.options)
    yield roff.heading("Commands")
    for section in SECTIONS:
        for command in program.commands:
            if command.section == section:
                yield from _command(command)
    yield from _items("Environment", ENVIRONMENT, roff.bold)
    yield from _items("Files", FILES, roff.italic)
    yield roff.literal(EXAMPLE)
    yield from _items("Exit status", STATUSES, roff.escape)
    yield roff.heading("See also")
    yield f"{roff.bold('qemu-ga')}(8)"


def _command(command: Program) -> Iterator[str]:
    yield roff.subheading(f"qgactl {command.name}")
    yield roff.paragraph(command.usage)
    yield from _click_text(command.help)
    for argument in command.arguments:
        yield roff.item(roff.italic(argument.name), argument.help)
    yield from map(option_item, command.options)


def _items(title: str, texts: dict[str, str], mark: Callable[[str], str]) -> Iterator[str]:
    yield roff.heading(title)
    for name, text in texts.items():
        yield roff.item(mark(name), text)


def _click_text(text: str) -> Iterator[str]:
    """A help text: paragraphs, and after a line of \\b one whose lines stay as they are."""
    for part in text.split("\n\n"):
        lines = part.strip("\n").splitlines()
        if lines[0].strip() == "\b":
            yield roff.paragraph(lines[1])
            yield roff.literal("\n".join(line[2:] for line in lines[2:]))
        else:
            yield roff.paragraph(" ".join(part.split()))
