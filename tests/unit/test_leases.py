"""DHCP clients that are asked to renew, with programs that stand in for them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

leases: Any = import_module("qga.commands._leases")
processes: Any = import_module("qga.commands._processes")
steps: Any = import_module("qga.commands._steps")


def test_pid_files(tmp_path: Path) -> None:
    file, name = tmp_path / "pid", Path("/proc/self/comm").read_text().strip()
    assert processes.pid_in(str(file), name) is None
    for content, found in ((str(os.getpid()), os.getpid()), ("x", None), ("9" * 12, None)):
        file.write_text(f"{content}\n")
        assert processes.pid_in(str(file), name) == found
    file.write_text(f"{os.getpid()}\n")
    assert processes.pid_in(str(file), "another") is None


CLIENT = """#!/bin/sh
echo "${0##*/} $*" >>"$LOG"
case "$*" in *show*)
    printf 'GENERAL.DEVICE:lo\\nGENERAL.CON-UUID:17-3\\n\\n'
    printf 'GENERAL.DEVICE:eth1\\nGENERAL.CON-UUID:17-4\\nDHCP4.OPTION[1]:a = b\\n\\n' ;;
esac
exit "$STATUS"
"""


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that write down how they were called; this process has all pid files."""
    (tmp_path / "bin").mkdir()
    for name in ("networkctl", "nmcli", "dhclient", "dhcpcd"):
        (tmp_path / "bin" / name).write_text(CLIENT)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setenv("LOG", f"{tmp_path}/log")
    monkeypatch.setenv("STATUS", "0")
    monkeypatch.setattr(leases, "_RUN", f"{tmp_path}/run")
    monkeypatch.setattr(leases, "pid_in", lambda path, _name: 17 if os.path.exists(path) else None)
    monkeypatch.setattr(leases, "is_run_by_root", lambda _pid: True)
    monkeypatch.setattr(leases, "read_bytes", lambda _path: b"/sbin/dhclient\0-4\0eth2\0")
    states = [{"state": "active"}]
    monkeypatch.setattr(leases, "_readiness", SimpleNamespace(units=lambda _names: states))
    (tmp_path / "run").mkdir()
    return tmp_path


def calls_of(clients: Path) -> list[str]:
    return (clients / "log").read_text().splitlines()


def test_no_dhcp_client(clients: Path) -> None:
    told = steps.step("dhcp", leases.renew)
    assert told["result"] == "not-applicable"
    assert not (clients / "log").exists()


def test_every_dhcp_client_renews(clients: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(
        leases, "os", SimpleNamespace(**{**vars(os), "kill": lambda *to: killed.append(to)})
    )
    run = clients / "run"
    for name in ("systemd/netif/leases/1", "NetworkManager/x", "dhcpcd/eth3-4.pid"):
        (run / name).parent.mkdir(parents=True)
        (run / name).touch()
    for name in ("dhclient.eth2.pid", "dhcpcd-eth5.pid", "udhcpc.eth4.pid", "other.pid"):
        (run / name).touch()
    assert leases.renew() == (
        "asked to renew: lo (systemd-networkd), eth1 (NetworkManager), eth2 (dhclient), "
        "eth3 (dhcpcd), eth5 (dhcpcd), eth4 (udhcpc)"
    )
    assert killed == [(17, 10)]
    assert [call for call in calls_of(clients) if "show" not in call] == [
        "networkctl renew lo",
        "nmcli --wait 0 connection up uuid 17-4 ifname eth1",
        f"dhclient -x -pf {run}/dhclient.eth2.pid",
        "dhclient -4 eth2",
        "dhcpcd -4 --rebind eth3",
        "dhcpcd --rebind eth5",
    ]


def test_one_dhcpcd_for_all_interfaces(clients: Path) -> None:
    (clients / "run/dhcpcd").mkdir()
    (clients / "run/dhcpcd/pid").touch()
    assert leases.renew() == "asked to renew: all interfaces (dhcpcd)"
    assert calls_of(clients) == ["dhcpcd --rebind"]


def test_a_client_that_fails_does_not_stop_the_others(
    clients: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clients / "run/dhcpcd-eth5.pid").touch()
    (clients / "run/dhclient.eth2.pid").touch()
    (clients / "bin/dhclient").write_text("#!/bin/sh\necho no lease; exit 3\n")
    told = steps.step("dhcp", leases.renew)
    assert told["result"] == "failed"
    assert told["text"] == (
        f"eth2 (dhclient): 'dhclient -x -pf {clients}/run/dhclient.eth2.pid' failed with status 3: "
        "no lease; asked to renew: eth5 (dhcpcd)"
    )


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process of another user, whom the agent's root must not obey."""
    become = ["setpriv", "--reuid=12345", "--clear-groups"] if os.geteuid() == 0 else []
    with subprocess.Popen([*become, "sleep", "60"]) as process:
        while Path(f"/proc/{process.pid}/comm").read_text() != "sleep\n":
            time.sleep(0.01)
        yield process.pid
        process.kill()


def test_a_user_who_has_the_number_of_dhclient_is_not_obeyed(
    clients: Path, monkeypatch: pytest.MonkeyPatch, stranger: int
) -> None:
    """Or root would run the script that the arguments of that process name."""
    (clients / "run/dhclient.eth2.pid").write_text(f"{stranger}\n")
    monkeypatch.setattr(leases, "pid_in", lambda path, _name: processes.pid_in(path, "sleep"))
    monkeypatch.setattr(leases, "is_run_by_root", processes.is_run_by_root)
    told = steps.step("dhcp", leases.renew)
    assert (told["result"], f"process {stranger} of " in told["text"]) == ("failed", True)
    assert not (clients / "log").exists()
    assert processes.is_run_by_root(1)


def test_an_interface_that_is_gone_does_not_stop_the_others(clients: Path) -> None:
    folder = clients / "run/systemd/netif/leases"
    folder.mkdir(parents=True)
    for name in ("1", "999999999", "9" * 30):
        (folder / name).touch()
    assert leases.renew() == "asked to renew: lo (systemd-networkd)"


def test_a_client_that_cannot_be_asked_does_not_stop_the_others(
    clients: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clients / "run/NetworkManager").mkdir()
    (clients / "run/dhcpcd-eth5.pid").touch()
    (clients / "bin/nmcli").unlink()
    monkeypatch.setenv("PATH", f"{clients}/bin")
    (clients / "bin/dhcpcd").write_text("#!/bin/true")
    told = steps.step("dhcp", leases.renew)
    assert told["result"] == "failed"
    assert told["text"].endswith("No such file or directory; asked to renew: eth5 (dhcpcd)")
