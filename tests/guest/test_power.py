"""Sleep and the end, in a guest of their own: QEMU tells what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .agent_socket import AgentError, AgentSocket, encode
from .service import wait_for
from .vm import AGENT_PORT, Guest

pytestmark = pytest.mark.timeout(900)

# The last that the kernel says, on the console.
HALTED = "reboot: System halted"


@pytest.fixture(scope="module")
def machine() -> Iterator[Guest]:
    with Guest() as machine:
        machine.qmp("set-action", reboot="reset", shutdown="pause")
        yield machine


@pytest.fixture
def mortal(machine: Guest) -> Guest:
    """A guest that may be put to sleep or to death; one that is dead is booted again."""
    if machine.qmp("query-status")["status"] != "running" or is_halted(machine):
        machine.reset()
    machine.forget_events()
    return machine


def is_halted(guest: Guest) -> bool:
    return guest.console_log.read_text(errors="replace").rstrip().endswith(HALTED)


def ask_for(guest: Guest, command: str, **arguments: object) -> AgentSocket:
    """Send a request of which success is not answered."""
    agent = guest.connect()
    agent.send(encode(command, arguments))
    return agent


def assert_unanswered(agent: AgentSocket) -> None:
    with pytest.raises(TimeoutError):
        agent.read_line(timeout=0.1)
    agent.close()


def boot_id(guest: Guest) -> str:
    return guest.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout


@pytest.mark.parametrize("mode", ["ram", "hybrid"])
def test_sleep_and_wake_up(mortal: Guest, mode: str) -> None:
    before = boot_id(mortal)
    agent = ask_for(mortal, f"guest-suspend-{mode}")
    mortal.wait_event("SUSPEND")
    assert_unanswered(agent)
    mortal.qmp("system_wakeup")
    mortal.wait_event("WAKEUP")
    with mortal.connect() as agent:
        assert agent.execute("guest-ping") == {}
        assert agent.execute("guest-get-host-name") == {"host-name": "guest"}
    assert boot_id(mortal) == before


def test_sleep_on_disk_needs_swap_space(mortal: Guest) -> None:
    with mortal.connect() as agent, pytest.raises(AgentError) as caught:
        agent.execute("guest-suspend-disk")
    assert str(caught.value) == (
        "the requested suspend mode is not supported by the guest: there is no swap space"
    )


def test_unknown_mode_of_shutdown(mortal: Guest) -> None:
    with mortal.connect() as agent, pytest.raises(AgentError) as caught:
        agent.execute("guest-shutdown", mode="sleep")
    assert str(caught.value) == "mode is invalid (valid values are: halt|powerdown|reboot"


def test_reboot(mortal: Guest) -> None:
    before = boot_id(mortal)
    agent = ask_for(mortal, "guest-shutdown", mode="reboot")
    mortal.wait_event("RESET", guest=True, reason="guest-reset")
    assert_unanswered(agent)
    mortal.wait_until_booted()
    assert boot_id(mortal) != before
    with mortal.connect() as agent:
        assert agent.execute("guest-ping") == {}


def test_halt(mortal: Guest) -> None:
    """A machine that is halted stays on and does nothing: QEMU has no event for that."""
    agent = ask_for(mortal, "guest-shutdown", mode="halt")
    mortal.wait_port(AGENT_PORT, is_open=False)
    wait_for(lambda: is_halted(mortal), "the halt")
    assert_unanswered(agent)
    assert mortal.qmp("query-status")["status"] == "running"


def test_powerdown_is_what_is_meant_without_a_mode(mortal: Guest) -> None:
    agent = ask_for(mortal, "guest-shutdown")
    mortal.wait_event("SHUTDOWN", guest=True, reason="guest-shutdown")
    assert_unanswered(agent)
