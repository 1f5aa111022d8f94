"""pytest's plugin: the fixture `guest`, and Testinfra's hosts `qga://GUEST`.

pytest imports this module in every run, and the rest only for a test that uses it.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from qga.integrations.booted import BootedGuest, Machine

SETTINGS = {
    "image": "disk image that the fixture `guest` boots; it stays as it is",
    "memory": "memory of the guest in MiB (default: 1024)",
    "arguments": "further arguments of QEMU, such as '-smp 2'",
    "accelerator": "accelerators of QEMU, the best first (default: kvm:tcg)",
    "program": "QEMU to run (default: qemu-system-x86_64)",
    "timeout": "seconds until the agent must answer (default: 300)",
    "scope": "scope of the fixture: session, package, module (default), class or function",
}

MARKER = (
    "guest(image, memory, arguments, accelerator, program, timeout): "
    "the machine that the fixture `guest` boots; `arguments` is a list"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("guest", "virtual machines (qga)")
    for name, meaning in SETTINGS.items():
        with suppress(ValueError):  # a plugin that was loaded earlier has this option
            group.addoption(f"--guest-{name}", metavar=name.upper(), help=meaning)
        parser.addini(f"guest_{name}", meaning)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    testinfra = sys.modules.get("testinfra.backend")  # its own plugin has imported it
    if testinfra:
        testinfra.BACKENDS["qga"] = "qga.integrations.testinfra.QgaBackend"


def scope_of_guest(fixture_name: str, config: pytest.Config) -> Any:
    return setting(config, "scope") or "module"


@pytest.fixture(scope=scope_of_guest)
def guest(request: pytest.FixtureRequest) -> Iterator[BootedGuest]:
    """A virtual machine that has booted; a test leaves it as it found it, or restores it."""
    from qga.integrations.booted import booted
    from qga.integrations.virtual_machine import GuestError

    failure = ""
    with ExitStack() as stack:
        try:
            guest = stack.enter_context(booted(machine_for(request)))
        except GuestError as error:
            failure = str(error)
        if failure:  # outside of the handler, so that pytest shows no other error with it
            pytest.fail(failure, pytrace=False)
        yield guest


def machine_for(request: pytest.FixtureRequest) -> Machine:
    """The machine of the closest marker, of the command line, or of the configuration."""
    from qga.integrations.booted import Machine

    marker = request.node.get_closest_marker("guest")
    given: dict[str, Any] = {name: setting(request.config, name) for name in Machine._fields}
    given["arguments"] = shlex.split(given["arguments"])
    wanted = {**given, **(marker.kwargs if marker else {})}
    directory = request.config.rootpath
    return Machine.of(directory, {name: value for name, value in wanted.items() if value})


def setting(config: pytest.Config, name: str) -> str:
    """An option, or the key of this name; "" if neither is set."""
    return config.getoption(f"guest_{name}") or config.getini(f"guest_{name}") or ""
