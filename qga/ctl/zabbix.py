"""The guests of this host for Zabbix, by UserParameter of the agent that runs on the host."""

from enum import Enum
from typing import Optional

import typer

from qga.client.errors import AgentError
from qga.client.hosts.trust import LeftOut
from qga.client.monitoring import zabbix as lld
from qga.client.monitoring.metrics import Readings, read_metrics
from qga.ctl import display
from qga.ctl.app import FAILED, command, faults
from qga.ctl.command import ADVANCED
from qga.ctl.guest_words import NOWHERE, Found
from qga.ctl.settings import Settings, is_complete
from qga.ctl.targets import targets
from qga.ctl.values import Expected

UP = "up"


class Kind(str, Enum):
    """What --discover lists."""

    FILESYSTEMS = "filesystems"
    DISKS = "disks"
    INTERFACES = "interfaces"


def name(guest: Optional[str]) -> Optional[str]:
    """A callback. Zabbix's server chooses the word; an address could lead to any host."""
    if guest and is_complete(guest):
        raise Expected("use a name that qgactl list shows, not an address")
    return guest


@command(ADVANCED, NOWHERE)
def zabbix(
    context: typer.Context,
    guest: Optional[str] = typer.Argument(
        None, metavar="[GUEST]", callback=name, help="A name, not an address; see qgactl list."
    ),
    metric: str = typer.Argument(
        "", metavar="[METRIC]", help="As in the exporter, without qga_; or up, which is 0 or 1."
    ),
    labels: Optional[list[str]] = typer.Argument(
        None, metavar="[LABEL]...", help="Labels that select one value, in any order."
    ),
    discover: Optional[Kind] = typer.Option(
        None,
        metavar="filesystems|disks|interfaces",
        help="Low-level discovery of what the guest has, instead of its values.",
    ),
) -> None:
    """Print metrics and low-level discovery of guests for Zabbix.

    Without GUEST: low-level discovery of the guests that run on this host. With GUEST: one value,
    or all as JSON, for items that depend on one. /usr/share/qgactl/zabbix/qga.conf has the
    UserParameters for Zabbix's agent.

    \b
    Examples:
      qgactl zabbix
      qgactl zabbix web --discover filesystems
      qgactl zabbix web filesystem_used_bytes /
      qgactl zabbix web cpu_seconds_total 0 idle
      zabbix_get -s host1 -k 'qga.value[web,load1]'
    """
    settings: Settings = context.obj
    # An empty word is an item without its guest, as in qga.up[].
    if guest is None and not (settings.named or discover):
        # Zabbix takes notes on stderr for a part of the value, so guests left out are not named.
        names = [target.name for target in targets(settings, [])(LeftOut())]
        print(display.compact_json(lld.discovered_guests(names)))
        return
    settings = settings.with_guest(Found(guest or "")).with_example("zabbix GUEST", NOWHERE)
    if metric == UP:
        print(int(answers(settings)))
        return
    with faults(), settings.agent() as agent:
        readings = read_metrics(agent, settings.timeout)
    if discover:
        print(display.compact_json(lld.discovered(readings, discover.value)))
    elif metric:
        print(shown(readings, metric, labels or []))
    else:
        print(display.compact_json(lld.all_values(readings)))


def answers(settings: Settings) -> bool:
    try:
        with settings.agent():
            return True
    except AgentError:
        return False


def shown(readings: Readings, metric: str, labels: list[str]) -> str:
    """The value, exactly. typer.Exit if it is not one."""
    try:
        # A UserParameter passes an empty word for each argument that its item does not have.
        value = lld.value_of(readings, metric, [label for label in labels if label])
    except LookupError as error:
        display.say(display.printable(str(error.args[0])))
        raise typer.Exit(FAILED) from None
    return f"{value:.0f}" if value.is_integer() else repr(value)
