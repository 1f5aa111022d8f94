"""Copies the disks of a guest while it is frozen: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = """
module: snapshot
short_description: Copy the disks of a guest while its filesystems are frozen
version_added: 0.2.0
author: qga maintainers
description:
  - Freezes the guest, has QEMU begin to copy its disks, and thaws the guest whatever happens. It is
    frozen for a fraction of a second, and runs while QEMU copies.
  - Fails, and copies nothing, if the guest cannot be frozen as a whole. After an error nothing is
    left of a copy.
  - Does nothing if the directory contains a complete snapshot already.
  - The same as C(qgactl snapshot).
options:
  destination:
    description: The directory to create. It gets a file for each disk, and C(snapshot.json).
    type: path
    required: true
  disks:
    description: Names of disks. By default all that can be written to and are not temporary.
    type: list
    elements: str
    default: []
  external:
    description: Copy nothing, but have the guest write to new files from now on.
    type: bool
    default: false
  format:
    description: The format of the files.
    type: str
    choices: [qcow2, raw]
    default: qcow2
  qmp:
    description: The socket of QEMU's monitor, if it is not found by itself.
    type: path
    default: ""
  unfrozen:
    description: Mount points that need not be frozen, such as C(/boot/efi).
    type: list
    elements: str
    default: []
  crash_consistent:
    description: Take the snapshot even if the guest cannot be frozen.
    type: bool
    default: false
extends_documentation_fragment:
  - qga.guest.agent
"""

EXAMPLES = """
- name: Copy the disks of web
  hosts: hypervisor
  tasks:
    - name: Copy them
      qga.guest.snapshot:
        guest: web
        destination: /backup/web-monday
"""

RETURN = """
snapshot:
  description: The record of the snapshot, the content of C(snapshot.json).
  returned: if there is a snapshot
  type: dict
  sample:
    consistent: true
    disks: [{name: root, file: root.qcow2, format: qcow2, size: 1073741824}]
    freeze: {seconds: 0.1, before: 0.15, frozen: 2}
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.qga.guest.plugins.module_utils.agent import run_module

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from qga.client import GuestAgent

RECORD = "snapshot.json"
MOST_BYTES = 1024 * 1024

ARGUMENTS = {
    "destination": {"type": "path", "required": True},
    "disks": {"type": "list", "elements": "str", "default": []},
    "external": {"type": "bool", "default": False},
    "format": {"type": "str", "choices": ["qcow2", "raw"], "default": "qcow2"},
    "qmp": {"type": "path", "default": ""},
    "unfrozen": {"type": "list", "elements": "str", "default": []},
    "crash_consistent": {"type": "bool", "default": False},
}


def take(module: AnsibleModule, agent: GuestAgent) -> dict[str, Any]:
    from qga.client.conversion import plain

    destination = Path(module.params["destination"])
    if (destination / RECORD).is_file():
        return {"changed": False, "snapshot": recorded(destination, agent.address)}
    if module.check_mode:
        return {"changed": True}
    options = {name: module.params[name] for name in ARGUMENTS if name != "destination"}
    return {"changed": True, "snapshot": plain(agent.snapshot(str(destination), **options))}


def recorded(destination: Path, guest: str) -> Any:
    """The record of an earlier snapshot. Raises ValueError if it is of another guest."""
    with (destination / RECORD).open(encoding="utf-8") as file:
        record = json.loads(file.read(MOST_BYTES))
    whose = record.get("guest")
    if whose != guest:
        raise ValueError(f"{destination} has a snapshot of {whose}, not of {guest}")
    return record


def main() -> None:
    run_module(ARGUMENTS, take)


if __name__ == "__main__":
    main()
