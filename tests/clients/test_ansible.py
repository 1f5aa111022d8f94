"""Ansible, over its connection community.libvirt.libvirt_qemu."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .domain import Domain

pytestmark = pytest.mark.timeout(900)

# The distribution's, whose Python has libvirt.
ANSIBLE = "/usr/bin/ansible"
SETTINGS = {
    "ANSIBLE_LOAD_CALLBACK_PLUGINS": "true",
    "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
    "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
    "LC_ALL": "C.UTF-8",
}

Ansible = Callable[..., dict[str, Any]]


@pytest.fixture
def ansible(domain: Domain, tmp_path: Path) -> Ansible:
    """Runs a module in the guest; its result."""
    settings = tmp_path / "ansible.cfg"
    settings.touch()

    def ansible(module: str, **arguments: object) -> dict[str, Any]:
        done = subprocess.run(
            [
                *(ANSIBLE, domain.name, f"--inventory={domain.name},", f"--module-name={module}"),
                *([f"--args={json.dumps(arguments)}"] if arguments else []),
                "--connection=community.libvirt.libvirt_qemu",
                f"--extra-vars={json.dumps({'ansible_libvirt_uri': domain.libvirt.uri})}",
            ],
            env={**os.environ, **SETTINGS, "ANSIBLE_CONFIG": str(settings), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=800,
            check=False,
        )
        assert done.stdout, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)["plays"][0]["tasks"][0]["hosts"][
            domain.name
        ]
        has_run = "invocation" in result  # otherwise only Ansible has returned something
        assert has_run, "\n".join([str(result), done.stderr, domain.libvirt.log.read_text()])
        return result

    return ansible


def test_ping(ansible: Ansible) -> None:
    assert ansible("ping")["ping"] == "pong"


def test_command(domain: Domain, ansible: Ansible) -> None:
    script = "cat /proc/sys/kernel/random/boot_id; echo said >&2; exit 3"
    result = ansible("command", argv=["/bin/sh", "-c", script])
    assert result["stdout"] == domain.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.strip()
    assert result["stderr"] == "said"
    assert result["rc"] == 3


def test_setup(domain: Domain, ansible: Ansible) -> None:
    facts = ansible("setup")["ansible_facts"]
    assert facts["ansible_kernel"] == domain.run(["uname", "-r"]).stdout.strip()
    assert facts["ansible_hostname"] == "guest"
    assert facts["ansible_default_ipv4"]["address"] == "10.0.2.15"
    assert facts["ansible_processor_vcpus"] == 2
    assert facts["ansible_env"]["HOME"] == "/root"
