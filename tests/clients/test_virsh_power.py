"""Sleep and the end, ordered by virsh in the agent's way."""

from __future__ import annotations

import pytest

from tests.guest.ending import boot_id, console
from tests.guest.service import wait_for

from .domain import Domain

pytestmark = pytest.mark.timeout(900)


def wait_for_state(domain: Domain, state: str) -> None:
    wait_for(lambda: domain.state() == state, f"the domain to be {state}")


def test_reboot(domain: Domain) -> None:
    before = boot_id(domain)
    domain.virsh("reboot", "--mode", "agent")
    wait_for(lambda: not domain.is_connected(), "the agents to end")
    domain.wait_until_booted()
    assert boot_id(domain) != before
    assert domain.answers()


def test_sleep_and_wake_up(domain: Domain) -> None:
    before = boot_id(domain)
    domain.virsh("dompmsuspend", "mem")
    wait_for_state(domain, "pmsuspended")
    domain.virsh("dompmwakeup")
    wait_for(domain.answers, "the agent to answer")  # its port is closed for a while on waking
    assert domain.state() == "running"
    assert boot_id(domain) == before


def test_shutdown(domain: Domain) -> None:
    domain.virsh("shutdown", "--mode", "agent")
    wait_for_state(domain, "shut off")
    assert domain.virsh("domstate", "--reason").strip() == "shut off (shutdown)"
    assert "reboot: Power down" in console(domain)
