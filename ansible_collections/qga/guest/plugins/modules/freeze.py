"""Freezes the filesystems of a guest: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = """
module: freeze
short_description: Freeze the filesystems of a guest
version_added: 0.2.0
author: qga maintainers
description:
  - With C(command), freezes the guest, runs the command on this host, and thaws the guest whatever
    happens. Fails if the guest was frozen already, if not everything could be frozen, if it thawed
    before the command had ended, or if the command fails.
  - Without C(command), the guest stays frozen until M(qga.guest.thaw). Put that into C(always). If
    it never comes, qga thaws by itself after its C(freeze-timeout); QEMU's own agent does not.
  - M(qga.guest.snapshot) copies the disks of guests of QEMU, Proxmox VE and libvirt.
options:
  mountpoints:
    description: Freeze only the filesystems that are mounted here.
    type: list
    elements: str
  command:
    description: A program of this host and its arguments, such as one that takes a snapshot.
    type: list
    elements: str
extends_documentation_fragment:
  - qga.guest.agent
"""

EXAMPLES = """
- name: Snapshot a volume
  qga.guest.freeze:
    guest: web
    command: [lvcreate, --snapshot, --name, monday, --size, 5G, vg/web]
  delegate_to: hypervisor

- name: Snapshot volumes with other modules
  delegate_to: hypervisor
  block:
    - name: Freeze
      qga.guest.freeze:
        guest: web
    - name: Snapshot
      ansible.builtin.command: zfs snapshot -r tank/web@monday
  always:
    - name: Thaw
      qga.guest.thaw:
        guest: web
"""

RETURN = """
count:
  description: How many filesystems were frozen.
  returned: if it was not frozen before
  type: int
thaw_in:
  description: Seconds until the agent thaws by itself, if it is qga.
  returned: without a command
  type: float
rc:
  description: The exit status of the command.
  returned: with a command
  type: int
stdout:
  description: The output of the command.
  returned: with a command
  type: str
stderr:
  description: The messages of the command.
  returned: with a command
  type: str
"""

import subprocess
from typing import TYPE_CHECKING, Any

from ansible_collections.qga.guest.plugins.module_utils.agent import run_module

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from qga.client import GuestAgent

ARGUMENTS = {
    "mountpoints": {"type": "list", "elements": "str"},
    "command": {"type": "list", "elements": "str"},
}


def freeze(module: AnsibleModule, agent: GuestAgent) -> dict[str, Any]:
    if module.params["command"]:
        return run_frozen(module, agent)
    state = agent.freeze_state()
    if state.status == "frozen" or module.check_mode:
        return {"changed": state.status != "frozen", "thaw_in": state.thaw_in}
    frozen = agent.freeze(module.params["mountpoints"])
    return {"changed": True, "count": frozen.count, "thaw_in": thaw_in(agent)}


def thaw_in(agent: GuestAgent) -> float | None:
    """Seconds until the agent thaws by itself; None if it does not say."""
    from qga.client import AgentError

    try:
        return agent.freeze_state().thaw_in
    except AgentError:
        return None


def run_frozen(module: AnsibleModule, agent: GuestAgent) -> dict[str, Any]:
    if module.check_mode:
        return {"changed": True}
    with agent.freeze(module.params["mountpoints"]) as frozen:
        # Unlike module.run_command, this ends the command if the module has to end.
        done = subprocess.run(
            module.params["command"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    told = {"count": frozen.count, "rc": done.returncode, "stdout": done.stdout}
    told["stderr"] = done.stderr
    if done.returncode:
        module.fail_json(f"the command exited with {done.returncode}; the guest is thawed", **told)
    return {"changed": True, **told}


def main() -> None:
    run_module(ARGUMENTS, freeze)


if __name__ == "__main__":
    main()
