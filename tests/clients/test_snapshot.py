"""qgactl snapshot of a domain: libvirt copies its disks, or gives it new files to write to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.guest.freezing import can_write
from tests.guest.image import run
from tests.integration.test_libvirt import qgactl

from .domain import Domain
from .test_virsh_freeze import features

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def base(domain: Domain) -> Iterator[Path]:
    """The file of the data's disk, which it is again afterwards."""
    base = domain.disk("sdc")
    yield base
    domain.commit("sdc", base)


def snapshot(domain: Domain, *words: str) -> tuple[int, str, str]:
    address = f"libvirt:{domain.libvirt.uri}/{domain.name}"
    return qgactl("--connect", address, "--timeout", "60", "--json", "snapshot", *words)


def write_marker(domain: Domain, text: str) -> None:
    domain.run(["/bin/sh", "-c", f"echo {text} >/mnt/data/kept"])


def check(disk: Path, text: str) -> None:
    assert "needs_recovery" not in features(disk)
    assert run(["debugfs", "-R", "cat /kept", str(disk)]) == f"{text}\n"


def check_freeze(record: dict[str, Any]) -> None:
    print(f"frozen for {record['freeze']['seconds']} s, after {record['freeze']['before']} s")
    assert record["consistent"] is True
    places = {each["mountpoint"] for each in record["freeze"]["filesystems"]}
    assert {"/", "/mnt/data"} <= places
    assert record["freeze"]["left-out"] == []


def test_a_copy(domain: Domain, tmp_path: Path) -> None:
    write_marker(domain, "copied")
    status, out, err = snapshot(domain, str(tmp_path / "copy"), "--disk", "sdc", "--format", "raw")
    assert (status, err) == (0, "")
    record = json.loads(out)
    check_freeze(record)
    assert {each["name"]: each["reason"] for each in record["skipped"]} == {
        "vda": "not asked for",
        "vdb": "not asked for",
    }
    check(tmp_path / "copy/sdc.raw", "copied")
    assert can_write(domain, "/mnt/data/written")


def test_an_external_snapshot(domain: Domain, base: Path, tmp_path: Path) -> None:
    write_marker(domain, "outside")
    status, out, err = snapshot(domain, str(tmp_path / "new"), "--disk", "sdc", "--external")
    assert (status, err) == (0, "")
    record = json.loads(out)
    check_freeze(record)
    assert record["disks"][0]["base"] == str(base)
    assert domain.disk("sdc") == tmp_path / "new/sdc.qcow2"
    check(base, "outside")
    assert can_write(domain, "/mnt/data/written")


def test_a_destination_that_libvirt_cannot_use(domain: Domain, tmp_path: Path) -> None:
    """Nothing is left, and the guest is thawed."""
    status, _, err = snapshot(domain, str(tmp_path / "copy"), "--disk", "vdb")
    assert (status, err.endswith(": disk vdb: it is read-only\n")) == (1, True)
    busy = domain.virsh("domblklist")
    status, _, err = snapshot(domain, str(tmp_path / "none/copy"), "--disk", "sdc")
    assert status == 1
    assert f"cannot create {tmp_path}/none/copy: No such file or directory" in err
    assert domain.virsh("domblklist") == busy
    assert can_write(domain, "/mnt/data/written")
