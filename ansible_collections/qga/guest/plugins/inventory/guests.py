"""The guests of a host as hosts of Ansible: see DOCUMENTATION.

What must stay true: what a guest reports is never evaluated as a template, is bounded in size, and
puts the guest only into groups whose names this plugin or the user has begun. A guest that does not
answer delays the inventory by no more than the timeout.
"""

from __future__ import annotations

DOCUMENTATION = """
name: guests
short_description: The guests of a host, through their guest agents
version_added: 0.2.0
author: qga maintainers
description:
  - Lists the running guests of the host that Ansible runs on, as C(qgactl list) does, and asks
    their agents about them.
  - The name of the inventory file ends with C(guests.yml) or C(guests.yaml), such as
    C(qga.guest.guests.yml).
  - All guests are in the group C(qga_guests), and in one of C(qga_answers), C(qga_frozen),
    C(qga_silent), C(qga_unreachable), and C(qga_held) if libvirt has the agent's socket open and
    its Python module is missing. The group C(qga_os_ID) tells the operating system, such as
    C(qga_os_debian).
  - The variable C(qga) contains what is known about a guest, C(address), C(manager), C(state) and
    C(error), and what the guest reports itself, C(os), C(os_id), C(os_version), C(hostname),
    C(addresses), C(version) and C(release). A guest may report anything, so let nothing depend on
    that which the guest must not decide. It is never evaluated as a template.
requirements:
  - The Python library qga, for the Python that runs Ansible.
  - The Python module of libvirt for guests that libvirt runs.
options:
  plugin:
    description: C(qga.guest.guests)
    type: str
    required: true
    choices: [qga.guest.guests]
  guests:
    description:
      - Guests to list instead of those of this host. A dictionary of names and addresses, such as
        C(libvirt:qemu+ssh://root@host/system/web).
    type: dict
    default: {}
  exclude:
    description: Shell patterns of names of guests to leave out.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds to wait for a guest. All guests are asked at the same time.
    type: float
    default: 5
  connection:
    description: The connection plugin for the guests.
    type: str
    default: qga.guest.qga
extends_documentation_fragment:
  - constructed
"""

EXAMPLES = """
# guests.yml: all guests of this host
plugin: qga.guest.guests

---
# Some guests of another host, grouped by what they report
plugin: qga.guest.guests
guests:
  web: libvirt:qemu+ssh://root@host1/system/web
  db: libvirt:qemu+ssh://root@host1/system/db
keyed_groups:
  - key: qga.os_version
    prefix: debian
groups:
  outdated: qga.release is none
compose:
  reported_name: qga.hostname
"""

import re
import sys
from collections import Counter
from fnmatch import fnmatch
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable

try:
    from ansible.utils.unsafe_proxy import wrap_var as unsafe
except ImportError:  # ansible-core trusts no values of inventory plugins from 2.19 on

    def unsafe(value: Any) -> Any:
        return value


try:
    from qga.client import FoundGuest, find_guests
    from qga.client.addresses import is_name
    from qga.client.hosts.survey import Answer, survey
    from qga.client.hosts.trust import LeftOut

    MISSING = ""
except ImportError as error:
    MISSING = f"{error}: install qga for {sys.executable}, for example with pip install qga"

ENDINGS = ("guests.yml", "guests.yaml")

# ansible-core 2.14 evaluates templates in inventory_hostname.
TEMPLATE = re.compile("{[{%#]")
NOT_IN_GROUPS = re.compile("[^a-z0-9]+")
LONGEST_GROUP = 40
LONGEST_ERROR = 1000


class InventoryModule(BaseInventoryPlugin, Constructable):
    """Reads the configuration, asks the guests, and adds them."""

    NAME = "qga.guest.guests"

    def verify_file(self, path: str) -> bool:
        return bool(super().verify_file(path)) and path.endswith(ENDINGS)

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        if MISSING:
            raise AnsibleParserError(MISSING)
        guests = self._wanted()
        try:
            answers = survey(guests, self.get_option("timeout"))
        except ValueError as error:
            raise AnsibleParserError(f"{path}: {error}") from error
        uses = Counter(guest.name for guest in guests)
        self.inventory.add_group("qga_guests")
        for answer in answers:
            guest = answer.guest
            name = guest.name if uses[guest.name] == 1 else guest.address
            if name == "localhost" or TEMPLATE.search(name):
                self.display.warning(f"{name!r} is left out: set another name by the option guests")
            else:
                self._add(name, answer)

    def _wanted(self) -> list[FoundGuest]:
        given = self.get_option("guests")
        # With its address as its domain, a guest is reached as the address says.
        found = [FoundGuest(name, str(at), "", "", domain=str(at)) for name, at in given.items()]
        patterns = self.get_option("exclude")
        return [
            guest
            for guest in found or self._found()
            if not any(fnmatch(guest.name, pattern) for pattern in patterns)
        ]

    def _found(self) -> list[FoundGuest]:
        left_out = LeftOut()
        guests = find_guests(left_out)
        for line in left_out.lines():
            self.display.warning(line)
        return guests

    def _add(self, name: str, answer: Answer) -> None:
        host = self.inventory.add_host(name, group="qga_guests")
        variables = {
            "ansible_connection": self.get_option("connection"),
            "ansible_host": unsafe(reachable_as(name, answer.guest)),
            "qga": unsafe(known(answer)),
        }
        for key, value in variables.items():
            self.inventory.set_variable(host, key, value)
        for group in groups_of(answer):
            self.inventory.add_host(name, group=self.inventory.add_group(group))
        self._construct(host, variables)

    def _construct(self, host: str, variables: dict[str, Any]) -> None:
        strict = self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), variables, host, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), variables, host, strict=strict)
        keys = self.get_option("keyed_groups")
        self._add_host_to_keyed_groups(keys, variables, host, strict=strict)


def reachable_as(name: str, guest: FoundGuest) -> str:
    """Its name if possible: a name leads only to users of this host that are trusted."""
    return name if guest.manager and is_name(name) else guest.address


def known(answer: Answer) -> dict[str, Any]:
    return {
        "address": answer.guest.address,
        "manager": answer.guest.manager,
        "state": answer.state,
        "error": answer.error[:LONGEST_ERROR],
        "os": answer.os,
        "os_id": answer.os_id,
        "os_version": answer.os_version,
        "hostname": answer.host_name,
        "addresses": list(answer.addresses),
        "version": answer.version,
        "release": answer.qga,
    }


def groups_of(answer: Answer) -> list[str]:
    """The guest chooses at most the end of a group's name."""
    end = NOT_IN_GROUPS.sub("_", (answer.os_id or "").lower())[:LONGEST_GROUP]
    return [f"qga_{answer.state}", *([f"qga_os_{end}"] if end else [])]
