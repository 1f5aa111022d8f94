"""qgactl list: the guests of this host."""

import os
from typing import Any

import typer
from rich.text import Text

from qga.client.hosts.discovery import find_guests
from qga.client.hosts.survey import ANSWERS, Answer, survey
from qga.client.hosts.trust import LeftOut
from qga.ctl import display
from qga.ctl.app import command
from qga.ctl.command import GUESTS
from qga.ctl.guest_words import NOWHERE
from qga.ctl.settings import Settings

COLUMNS = ("Guest", "State", "Agent", "OS", "Address")
LONG_COLUMNS = (*COLUMNS[:-1], "Addresses", "Connect with")

NONE = "no running guest with an agent port was found; `qgactl channel` shows how to add one"


@command(GUESTS, NOWHERE, name="list")
def list_guests(
    context: typer.Context,
    long: bool = typer.Option(
        False, "-l", "--long", help="Show all addresses, how to connect, and the release of qga."
    ),
) -> None:
    """List the guests on this host that have an agent port.

    Guests of libvirt (system and session), of Proxmox, of any other QEMU, of Firecracker and of
    Cloud Hypervisor are found and asked, all at the same time. Processes and sockets of other
    users, and whatever you have no permission to read, are left out; a note on standard error
    names them. Another note has the names of the configuration file, whose guests are not asked.

    \b
    States:
      answers      the agent answers
      frozen       the filesystems are frozen (`qgactl thaw` ends that)
      silent       the agent did not answer in time (see --timeout)
      held         libvirt has the socket open, and python3-libvirt is missing
      unreachable  see the reason on standard error

    \b
    Examples:
      qgactl list
      qgactl list --long
      qgactl list --json --timeout 1
      QGA_HOST_ROOT=/host qgactl list   # in a container with the host's / at /host
    """
    settings: Settings = context.obj
    left_out = LeftOut()
    answers = survey(find_guests(left_out), settings.timeout)
    for line in left_out.lines():
        display.note(line)
    if settings.structured:
        settings.print([as_object(answer) for answer in answers])
        return
    if answers and long:
        display.show_table(LONG_COLUMNS, map(long_row, answers), folding=LONG_COLUMNS)
    elif answers:
        display.show_table(COLUMNS, map(row, answers), folding=("Guest", "OS"))
    else:
        display.note(NONE if os.geteuid() == 0 else f"{NONE} (root may see more)")
    note_configured(settings, {answer.guest.name for answer in answers})
    if not long and len({answer.guest.name for answer in answers}) < len(answers):
        display.note(
            "several guests have the same name; `qgactl list --long` shows their addresses"
        )
    for answer in answers:
        if answer.error:
            display.say(f"{answer.guest.name}: {answer.error}")


def note_configured(settings: Settings, shown: set[str]) -> None:
    """Note names in the configuration file that are not among the guests found."""
    try:
        names = sorted(set(settings.book.guests) - shown)
    except typer.BadParameter as error:
        display.note(error.message)
        return
    if names:
        display.note(f"also in the configuration, and not asked: {', '.join(names)}")


def row(answer: Answer) -> list[Any]:
    """A row with one address, preferably a short one, and the number of other addresses."""
    more = len(answer.addresses) - 1
    # Usually that of IPv4, which is what people type.
    address = min(answer.addresses, key=len, default="")
    return [*beginning(answer), f"{address} +{more}" if more > 0 else address]


def long_row(answer: Answer) -> list[Any]:
    """A row with all addresses, and the release of qga."""
    name, state, version, system = beginning(answer)
    agent = f"{version} (qga {answer.qga})" if answer.qga else version
    return [name, state, agent, system, ", ".join(answer.addresses), answer.guest.address]


def beginning(answer: Answer) -> list[Any]:
    answers = answer.state == ANSWERS
    return [
        answer.guest.name,
        answer.state if answers else Text(answer.state, "red"),
        answer.version or "",
        answer.os or "",
    ]


def as_object(answer: Answer) -> dict[str, Any]:
    guest = answer.guest
    return {
        "name": guest.name,
        "address": guest.address,
        "socket": guest.socket,
        "manager": guest.manager,
        "state": answer.state,
        "error": answer.error or None,
        "version": answer.version,
        "qga": answer.qga,
        "os": answer.os,
        "host-name": answer.host_name,
        "addresses": list(answer.addresses),
    }
