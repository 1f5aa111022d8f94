"""The guests of this host for Checkmk, as a plugin of the agent that runs on the host."""

import time
from collections.abc import Sequence
from typing import Optional

import typer

from qga.client.hosts.trust import LeftOut
from qga.client.monitoring.checkmk import host_name, piggyback
from qga.client.monitoring.watch import Target, Watcher
from qga.ctl import display
from qga.ctl.app import command
from qga.ctl.command import ADVANCED
from qga.ctl.guest_words import NOWHERE
from qga.ctl.settings import Settings
from qga.ctl.targets import HELP, targets


@command(ADVANCED, NOWHERE)
def checkmk(
    context: typer.Context,
    addresses: Optional[list[str]] = typer.Argument(None, metavar="[GUEST]...", help=HELP),
) -> None:
    """Print the state of guests for Checkmk, each as a piggybacked host.

    Checkmk's own checks then watch each guest's processors, load, memory, filesystems, disks,
    network interfaces and uptime, and the service "QEMU guest agent" is critical if the guest does
    not answer within --timeout. Guests with QEMU's agent have fewer services. The name of the
    host is that of the guest, with an underscore for each character that Checkmk does not permit.

    \b
    Examples:
      qgactl checkmk
      install packaging/checkmk/qga /usr/lib/check_mk_agent/plugins
    """
    settings: Settings = context.obj
    left_out = LeftOut()
    found = named_differently(targets(settings, addresses or [])(left_out))
    for line in left_out.lines():
        display.note(line)
    for sighting in Watcher(lambda: found, settings.timeout).look():
        for line in piggyback(sighting, time.time()):
            print(line)


def named_differently(found: Sequence[Target]) -> list[Target]:
    """The guests without those whose host would be that of another guest."""
    hosts: dict[str, Target] = {}
    for target in found:
        host = host_name(target.name)
        if host in hosts:
            first, second = hosts[host].name, target.name
            display.say(f"{second} is left out: for Checkmk it has the name of {first}, {host}")
        else:
            hosts[host] = target
    return list(hosts.values())
