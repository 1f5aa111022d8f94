"""Options of all modules of this collection."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of what module_utils.agent.ARGUMENTS accepts."""

    DOCUMENTATION = """
options:
  guest:
    description:
      - The name of a guest on the host that the module runs on, or an address such as
        C(libvirt:DOMAIN), C(unix:PATH) or C(proxmox:VMID).
    type: str
    required: true
  timeout:
    description: Seconds to wait for each answer of the agent. Freezing has a limit of its own.
    type: float
    default: 10
requirements:
  - On the host that the module runs on, the Python library qga.
  - There, the Python module of libvirt for guests that libvirt runs.
notes:
  - Run these modules on the host of the guest, not in the guest.
"""
