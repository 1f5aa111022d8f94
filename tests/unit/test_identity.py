"""qga-set-identity: names, IDs and keys, in directories that stand in for /etc."""

from __future__ import annotations

import os
import stat
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qga import QgaError
from qga.programs import spawn

hostname: Any = import_module("qga.commands._hostname")
keys: Any = import_module("qga.commands._host_keys")
machine_id: Any = import_module("qga.commands._machine_id")
remains: Any = import_module("qga.commands._old_identity")
replacing: Any = import_module("qga.commands._replacing")
steps: Any = import_module("qga.commands._steps")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of root only; those of pytest are below one where everybody may write."""
    monkeypatch.setattr(replacing.trust, "require", lambda path: path)
    return tmp_path


@pytest.mark.parametrize("name", ["a", "web-2", "WEB.example.org", "7up", "x" * 63, "1-2.a1"])
def test_valid_host_names(name: str) -> None:
    hostname.check(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "a..b", "a.", "-a", "a-", "a_b", "we/b", "../a", "a b", "a\n", "ü", "٣"),
        *("x" * 64, "10.0.0.1", "a.7", "a\0", ".".join(["x" * 30] * 3)),
    ],
)
def test_what_is_not_a_host_name(name: str) -> None:
    with pytest.raises(QgaError, match="is not a host name; use at most 64 letters"):
        hostname.check(name)


HOSTS = b"""\
127.0.0.1\tlocalhost
127.0.1.1\told.example.org old  # ours
::1 localhost old
192.0.2.1 old another
# 127.0.1.1 old
"""


def test_the_name_in_etc_hosts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostname, "_ETC", str(folder))
    assert hostname._new_hosts({b"old"}, "web-2") == {}
    (folder / "hosts").write_bytes(HOSTS)
    ((path, content),) = hostname._new_hosts({b"old"}, "web-2").items()
    assert path == f"{folder}/hosts"
    assert content == (
        HOSTS.replace(b"\told.example.org old ", b"\tweb-2.example.org web-2 ").replace(
            b"::1 localhost old", b"::1\tlocalhost web-2"
        )
    )
    ((_, whole),) = hostname._new_hosts({b"old"}, "web.example.net").items()
    assert b"127.0.1.1\tweb.example.net  # ours\n" in whole


@pytest.mark.parametrize(
    ("kernel", "stored", "line", "renamed"),
    [
        ("(none)", "old", "127.0.1.1 old", "127.0.1.1\tweb-2"),  # nothing has set it at the boot
        ("old", "other", "127.0.1.1 other old", "127.0.1.1\tweb-2"),
        ("localhost", "localhost", "127.0.0.1 localhost", "127.0.0.1 localhost"),
    ],
)
def test_the_names_that_are_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kernel: str, stored: str, line: str, renamed: str
) -> None:
    monkeypatch.setattr(hostname, "_ETC", str(folder))
    monkeypatch.setattr(hostname, "_SYSTEMD_RUNS", f"{folder}/nothing")
    monkeypatch.setattr(hostname, "socket", SimpleNamespace(sethostname=lambda name: None))
    monkeypatch.setattr(hostname.os, "uname", lambda: SimpleNamespace(nodename=kernel))
    (folder / "hostname").write_text(f"{stored}\n")
    (folder / "hosts").write_text(f"{line}\n")
    hostname.change("web-2")
    assert (folder / "hosts").read_text() == f"{renamed}\n"


def test_without_systemd_the_name_is_set_by_hand(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(hostname, "_ETC", str(folder))
    monkeypatch.setattr(hostname, "_SYSTEMD_RUNS", f"{folder}/nothing")
    monkeypatch.setattr(hostname, "socket", SimpleNamespace(sethostname=calls.append))
    (folder / "hosts").write_text(f"127.0.1.1 {os.uname().nodename}\n")
    text = hostname.change("web-2")
    assert calls == ["web-2"]
    assert (folder / "hostname").read_text() == "web-2\n"
    assert (folder / "hosts").read_text() == "127.0.1.1\tweb-2\n"
    assert text.endswith(f"and is web-2, also in {folder}/hostname and {folder}/hosts")


def test_a_name_that_is_refused_leaves_the_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_name: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(hostname, "_ETC", str(folder))
    monkeypatch.setattr(hostname, "_SYSTEMD_RUNS", f"{folder}/nothing")
    monkeypatch.setattr(hostname, "socket", SimpleNamespace(sethostname=refuse))
    (folder / "hosts").write_text(f"127.0.1.1 {os.uname().nodename}\n")
    told = steps.step("hostname", lambda: hostname.change("web-2"))
    assert told == {"name": "hostname", "result": "failed", "text": "Operation not permitted"}
    assert os.listdir(folder) == ["hosts"]
    assert "web-2" not in (folder / "hosts").read_text()


def test_machine_id(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, dbus = folder / "machine-id", folder / "dbus"
    monkeypatch.setattr(machine_id, "_ID", str(own))
    monkeypatch.setattr(machine_id, "_ID_OF_DBUS", str(dbus))
    assert steps.step("machine-id", machine_id.change)["result"] == "not-applicable"
    own.write_text("0123456789abcdef0123456789abcdef\n")
    dbus.symlink_to(own)
    machine_id.change()
    first = own.read_text()
    assert dbus.is_symlink()
    dbus.unlink()
    dbus.write_text("0123456789abcdef0123456789abcdef\n")
    machine_id.change()
    assert own.read_text() == dbus.read_text() != first
    number = int(first, 16)
    assert first == f"{number:032x}\n"
    assert (number >> 76) & 15 == 4
    assert (number >> 62) & 3 == 2


@pytest.fixture
def ssh(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Host keys of two types; no sshd runs."""
    monkeypatch.setattr(keys, "_FOLDER", str(folder))
    monkeypatch.setattr(keys, "_SYSTEMD_RUNS", f"{folder}/nothing")
    monkeypatch.setattr(keys, "_PID_FILE", f"{folder}/nothing")
    for kind, size in (("ecdsa", "384"), ("ed25519", "256")):
        path = str(folder / f"ssh_host_{kind}_key")
        steps.output_of(["ssh-keygen", "-q", "-t", kind, "-b", size, "-N", "", "-f", path], 60)
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_host_keys_of_the_same_types_and_sizes(ssh: Path) -> None:
    before = contents(ssh)
    text = keys.change()
    after = contents(ssh)
    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())
    listed = steps.output_of(["ssh-keygen", "-lf", f"{ssh}/ssh_host_ecdsa_key.pub"], 60).split()
    assert listed[0] == "384"
    assert f"new host keys: ECDSA {listed[1]}, ED25519 SHA256:" in text
    assert text.endswith("sshd does not run, and reads them when it starts")
    assert stat.S_IMODE((ssh / "ssh_host_ed25519_key").stat().st_mode) == 0o600


def test_without_ssh_keygen_keys_stay(ssh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(ssh)
    monkeypatch.setenv("PATH", str(ssh))
    monkeypatch.setattr(spawn, "_inherited", {})
    told = steps.step("ssh-host-keys", keys.change)
    assert told["result"] == "failed"
    assert told["text"] == "ssh-keygen: No such file or directory"
    assert contents(ssh) == before


def test_keys_stay_if_sshd_cannot_be_reloaded(ssh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise QgaError("sshd: no")

    before = contents(ssh)
    monkeypatch.setattr(keys, "_reload_sshd", refuse)
    assert steps.step("ssh-host-keys", keys.change)["result"] == "failed"
    assert contents(ssh) == before


def test_no_host_keys(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_FOLDER", str(folder))
    assert steps.step("ssh-host-keys", keys.change)["text"].startswith("the guest has no ssh host")
    monkeypatch.setattr(keys, "_FOLDER", f"{folder}/ssh")
    assert steps.step("ssh-host-keys", keys.change)["result"] == "not-applicable"


MOUNTS = b"""\
36 35 98:0 / /mnt rw,noatime shared:1 - ext4 /dev/vda rw
37 35 0:40 / /srv/a\\040b rw,relatime shared:2 master:1 - nfs4 server:/export rw,vers=4.2
38 35 0:41 / /win rw - cifs //server/share rw
"""
# 10.0.2.15:22 with 10.0.2.2, a listener, and another port; then [fe80::1]:22.
TCP = b"""\
  sl  local_address rem_address   st
   0: 0F02000A:0016 0202000A:A455 01 00000000:00000000
   1: 00000000:0016 00000000:0000 0A 00000000:00000000
   2: 0F02000A:0050 0202000A:A456 01 00000000:00000000
"""
TCP6 = b"""\
  sl  local_address rem_address   st
   0: 000080FE000000000000000001000000:0016 000080FE000000000000000002000000:A455 01 0
"""


def test_what_goes_on_with_the_old_identity(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in (("mounts", MOUNTS), ("tcp", TCP), ("tcp6", TCP6), ("duid", b"")):
        (folder / name).write_bytes(content)
    (folder / "journal/old").mkdir(parents=True)
    (folder / "leases").mkdir()
    (folder / "leases/1").touch()
    monkeypatch.setattr(remains, "_MOUNTS", f"{folder}/mounts")
    monkeypatch.setattr(remains, "_TABLES", (f"{folder}/tcp", f"{folder}/tcp6", f"{folder}/no"))
    monkeypatch.setattr(remains, "_OTHER_NAMES", {f"{folder}/duid": "DUID", f"{folder}/x": "x"})
    monkeypatch.setattr(remains, "_JOURNAL", f"{folder}/journal")
    monkeypatch.setattr(remains, "_NETWORKD_LEASES", f"{folder}/leases")
    monkeypatch.setattr(remains, "_NETWORK_MANAGER", f"{folder}/no")
    always = [
        "2 ssh connections on port 22, made with the old host keys, from 10.0.2.2, fe80::2",
        "nfs4 mount of server:/export at /srv/a b",
        "cifs mount of //server/share at /win",
        f"DUID in {folder}/duid, which stays",
    ]
    assert remains.remaining("") == always
    assert remains.remaining("old") == [
        *always,
        f"the journal in {folder}/journal/old, until systemd-journald is restarted",
        "the DHCP client ID of lo, until systemd-networkd is restarted",
    ]
