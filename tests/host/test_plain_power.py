"""qgactl shutdown, reboot and suspend, in a guest of their own: QEMU tells what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.guest.ending import boot_id, make_mortal
from tests.guest.vm import Guest
from tests.integration.qgactl_process import qgactl

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def mortal() -> Iterator[Guest]:
    with Guest() as machine:
        make_mortal(machine)
        yield machine


def order(guest: Guest, *arguments: str) -> str:
    """What qgactl prints when the guest has accepted it."""
    guest.connect().close()  # it has come up
    address = f"unix:{guest.channel_path()}"
    guest.forget_events()
    status, out, err = qgactl("--timeout", "60", *arguments, address=address)
    assert (status, err) == (0, "")
    return out.removeprefix(f"{address}: ")


def test_suspend_reboot_shutdown(mortal: Guest) -> None:
    """One after the other, for each boot of a guest costs half a minute."""
    before = boot_id(mortal)
    assert order(mortal, "suspend") == "suspend to ram accepted\n"
    mortal.wait_event("SUSPEND")
    mortal.qmp("system_wakeup")
    mortal.wait_event("WAKEUP")
    assert boot_id(mortal) == before

    assert order(mortal, "reboot") == "reboot accepted\n"
    mortal.wait_event("RESET", guest=True, reason="guest-reset")
    mortal.wait_until_booted()
    assert boot_id(mortal) != before

    assert order(mortal, "--json", "shutdown") == '{"accepted":"powerdown"}\n'
    mortal.wait_event("SHUTDOWN", guest=True, reason="guest-shutdown")
