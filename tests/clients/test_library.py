"""Our own library, which reaches the same agent by way of libvirt."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from tests.guest.image import CHECKOUT

from .domain import Domain

pytestmark = pytest.mark.timeout(900)

# The distribution's, which has libvirt; the library needs nothing else.
PYTHON = "/usr/bin/python3"
CONVERSATION = """
import json, os, sys
from qga.client import CommandNotFound, ConnectError, GuestAgent

address = sys.argv[1]
content = os.urandom(100_000)
with GuestAgent(address, 60) as guest:
    kernel = guest.osinfo().kernel_release
    ran = guest.exec(["/bin/sh", "-c", "cat; echo said >&2; exit 3"], input=b"heard")
    guest.write_file("/root/written", content)
    same = guest.read_file("/root/written") == content
    try:
        guest.call("guest-nothing")
    except CommandNotFound as error:
        refusal = str(error)
try:
    GuestAgent(address + "-not").ping()
except ConnectError as error:
    nobody = str(error)
told = {"kernel": kernel, "same": same, "refusal": refusal, "nobody": nobody}
told["ran"] = [ran.exitcode, ran.stdout.decode(), ran.stderr.decode()]
print(json.dumps(told))
"""


def test_conversation(domain: Domain) -> None:
    address = f"libvirt:{domain.libvirt.uri}/{domain.name}"
    done = subprocess.run(
        [PYTHON, "-c", CONVERSATION, address],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["kernel"] == domain.run(["uname", "-r"]).stdout.strip()
    assert told["ran"] == [3, "heard", "said\n"]
    assert told["same"]
    assert "guest-nothing" in told["refusal"]
    assert "virsh list --all" in told["nobody"]
