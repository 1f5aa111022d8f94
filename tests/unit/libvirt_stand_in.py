"""Modules that behave as libvirt's Python does, with one domain whose agent is scripted."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

NAME, UUID = "web", "6695eb01-f6a4-8304-79aa-97f2502e193f"

XML = """
<domain><name>web</name><devices><channel type='unix'>
<target type='virtio' name='org.qemu.guest_agent.0' {state}/></channel></devices></domain>
"""

# As libvirt.h numbers them.
CODES = {
    "VIR_ERR_INTERNAL_ERROR": 1,
    "VIR_ERR_SYSTEM_ERROR": 38,
    "VIR_ERR_NO_DOMAIN": 42,
    "VIR_ERR_OPERATION_INVALID": 55,
    "VIR_ERR_ARGUMENT_UNSUPPORTED": 74,
    "VIR_ERR_AGENT_UNRESPONSIVE": 86,
    "VIR_ERR_AGENT_COMMAND_TIMEOUT": 112,
}


class LibvirtError(Exception):
    """libvirt.libvirtError, with the message and the code that its methods tell."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = CODES[code]

    def get_error_code(self) -> int:
        return self.code

    def get_error_message(self) -> str:
        return str(self)


class Libvirt:
    """What the test decides, and what was asked. `agent` answers a command or raises."""

    def __init__(self) -> None:
        self.agent: Callable[[dict[str, Any]], Any] = lambda request: {}
        self.uris: list[str | None] = []
        self.timeouts: list[int] = []
        self.domain_state = 1
        self.port_state = "state='connected'"
        self.echoes_ids = False
        self.closed = 0
        self.released = threading.Event()

    # The connection, and the domain.

    def open(self, uri: str | None) -> Libvirt:
        if uri == "test:///refuses":
            raise LibvirtError("VIR_ERR_SYSTEM_ERROR", "Failed to connect socket to '/x'")
        if uri == "test:///hangs":
            self.released.wait(60)
        self.uris.append(uri)
        return self

    def close(self) -> None:
        self.closed += 1

    def lookupByName(self, name: str) -> Libvirt:  # noqa: N802 - libvirt's name
        return self.found(name, NAME)

    def lookupByUUIDString(self, uuid: str) -> Libvirt:  # noqa: N802 - libvirt's name
        return self.found(uuid, UUID)

    def found(self, key: str, known: str) -> Libvirt:
        if key != known:
            raise LibvirtError("VIR_ERR_NO_DOMAIN", f"Domain not found: '{key}'")
        return self

    def state(self) -> list[int]:
        """And the reason for it."""
        return [self.domain_state, 0]

    def XMLDesc(self) -> str:  # noqa: N802 - libvirt's name
        return XML.format(state=self.port_state)

    # libvirt_qemu.

    def ask(self, domain: Libvirt, request: str, timeout: int, flags: int) -> str:
        assert (domain, flags) == (self, 0)
        self.timeouts.append(timeout)
        sent = json.loads(request)
        reply = {"return": self.agent(sent)}
        return json.dumps({**reply, "id": sent["id"]} if self.echoes_ids else reply)


def installed(monkeypatch: pytest.MonkeyPatch) -> Libvirt:
    """Put the stand-in where `import libvirt` finds it."""
    scripted = Libvirt()
    libvirt: Any = ModuleType("libvirt")
    libvirt.libvirtError = LibvirtError
    libvirt.open = scripted.open
    libvirt.registerErrorHandler = lambda handler, context: None
    libvirt.__dict__.update(CODES)
    libvirt_qemu: Any = ModuleType("libvirt_qemu")
    libvirt_qemu.qemuAgentCommand = scripted.ask
    libvirt_qemu.VIR_DOMAIN_QEMU_AGENT_COMMAND_BLOCK = -2
    monkeypatch.setitem(sys.modules, "libvirt", libvirt)
    monkeypatch.setitem(sys.modules, "libvirt_qemu", libvirt_qemu)
    return scripted
