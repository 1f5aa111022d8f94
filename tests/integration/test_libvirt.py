"""Reaching guests through the real libvirt, as far as its test driver allows.

qgactl runs with the system's Python here, which has the libvirt module of the distribution.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.integration.qgactl_process import QGACTL, Result, environment

SYSTEM_PYTHON = "/usr/bin/python3"
UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"
CHECKOUT = Path(__file__).parents[2]


def qgactl(*arguments: str) -> Result:
    done = subprocess.run(
        [SYSTEM_PYTHON, *QGACTL[1:], "--timeout", "30", *arguments],
        capture_output=True,
        text=True,
        env={**environment(None), "PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("domain", ["test", UUID])
def test_a_domain_is_found_by_name_and_uuid(domain: str) -> None:
    address = f"libvirt:test:///default/{domain}"
    status, out, err = qgactl("--connect", address, "ping")
    assert (status, out) == (3, "")
    assert err.startswith(
        f"qgactl: {address}: guest-sync-delimited: this function is not supported"
    )
    assert err.endswith(": only QEMU domains have a guest agent\n")
    assert err.count("\n") == 1  # libvirt itself does not write to the terminal


def test_an_unknown_domain() -> None:
    address = "libvirt:test:///default/web"
    assert qgactl("--connect", address, "ping") == (
        3,
        "",
        f"qgactl: {address}: Domain not found: virsh list --all shows all domains\n",
    )


def test_a_libvirt_that_is_not_there(tmp_path: Path) -> None:
    uri = f"qemu+unix:///system?socket={tmp_path}/none"
    status, _, err = qgactl("--connect", f"libvirt:{uri}/web", "ping")
    assert status == 3
    assert err.startswith(f"qgactl: libvirt:{uri}/web: ")
    assert f"'{tmp_path}/none': No such file or directory: is libvirt running" in err


def test_doctor_looks_at_libvirts_definition() -> None:
    status, out, err = qgactl("doctor", "libvirt:test:///default/test")
    assert (status, err) == (1, "")
    assert out == (
        "ok      libvirt: it knows the domain\n"
        "ok      domain: it is running\n"
        "failed  channel: the domain has no channel org.qemu.guest_agent.0\n"
        "        try: qgactl channel --format xml prints what to add by virsh edit DOMAIN\n"
    )
