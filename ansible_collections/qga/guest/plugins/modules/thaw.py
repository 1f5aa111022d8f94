"""Thaws the filesystems of a guest: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = """
module: thaw
short_description: Thaw the filesystems of a guest
version_added: 0.2.0
author: qga maintainers
description:
  - Thaws what was frozen, by whomever. Does nothing if nothing is frozen.
extends_documentation_fragment:
  - qga.guest.agent
"""

EXAMPLES = """
- name: Thaw
  qga.guest.thaw:
    guest: web
  delegate_to: hypervisor
"""

RETURN = """
count:
  description: How many filesystems were thawed.
  returned: if it was frozen
  type: int
"""

from typing import TYPE_CHECKING, Any

from ansible_collections.qga.guest.plugins.module_utils.agent import run_module

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from qga.client import GuestAgent


def thaw(module: AnsibleModule, agent: GuestAgent) -> dict[str, Any]:
    if agent.freeze_status() == "thawed":
        return {"changed": False}
    return {"changed": True} if module.check_mode else {"changed": True, "count": agent.thaw()}


def main() -> None:
    run_module({}, thaw)


if __name__ == "__main__":
    main()
