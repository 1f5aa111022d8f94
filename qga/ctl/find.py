"""The guests of this host."""

import os
from typing import Any

import typer
from rich.text import Text

from qga.client.hosts.discovery import find_guests
from qga.client.hosts.survey import ANSWERS, Answer, survey
from qga.client.hosts.trust import LeftOut
from qga.ctl import display
from qga.ctl.app import JSON, Settings, app

COLUMNS = ("Guest", "State", "Agent", "OS", "Addresses", "Connect with")
LONG = ("Guest", "OS", "Addresses", "Connect with")

NONE = "no running guest with an agent's port was found; qgactl channel shows how to add one"


@app.command(name="list")
def list_guests(context: typer.Context, as_json: bool = JSON) -> None:
    """Show the guests that run on this host and have an agent's port.

    Finds those of libvirt (the system's and your own), of Proxmox, and any other QEMU, and asks
    all at once what they are. The last column is what --connect takes; the guest's name does, too.
    QEMUs and sockets of other users, and what you may not read, are left out and named on stderr.

    \b
    States:
      answers      the agent does
      frozen       its filesystems are, and it answers little: qgactl thaw
      silent       nothing came in time (see --timeout)
      held         libvirt holds the socket, and its Python module is missing here
      unreachable  the reason is told on stderr

    \b
    Examples:
      qgactl list
      qgactl --timeout 1 list --json
      QGA_HOST_ROOT=/host qgactl list   # in a container, with the host's / at /host
    """
    settings: Settings = context.obj
    left_out = LeftOut()
    answers = survey(find_guests(left_out), settings.timeout)
    for line in left_out.lines():
        display.say(line)
    if settings.json:
        print(display.compact_json([as_object(answer) for answer in answers]))
        return
    if answers:
        display.show_table(COLUMNS, map(row, answers), folding=LONG)
    else:
        display.say(NONE if os.geteuid() == 0 else f"{NONE} (root may see more)")
    for answer in answers:
        if answer.error:
            display.say(f"{answer.guest.name}: {answer.error}")


def row(answer: Answer) -> list[Any]:
    answers = answer.state == ANSWERS
    return [
        answer.guest.name,
        answer.state if answers else Text(answer.state, "red"),
        answer.version or "",
        answer.os or "",
        ", ".join(answer.addresses),
        answer.guest.address,
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
        "os": answer.os,
        "host-name": answer.host_name,
        "addresses": list(answer.addresses),
    }
