"""Commands of qgactl that change a guest, and the requests that they send to a scripted one."""

from __future__ import annotations

import base64
import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.agent_process import wait_for
from tests.integration.qgactl_process import ON_A_TERMINAL, QGACTL, environment, qgactl
from tests.integration.terminals import Terminal
from tests.integration.test_qgactl_freeze import read_until
from tests.unit.client_peer import Peer, Raw, Start
from tests.unit.conftest import start as start
from tests.unit.ctl.test_ctl_tables import KEY

NOTHING = Raw(b"")
YEAR_2033 = 2_000_000_000 * 10**9


def asked(peer: Peer, command: str) -> list[dict[str, Any]]:
    """The arguments of each call of the command."""
    return [each.get("arguments", {}) for each in peer.requests if each["execute"] == command]


@pytest.mark.parametrize(
    ("arguments", "command", "given", "name"),
    [
        (["shutdown"], "guest-shutdown", {"mode": "powerdown"}, "powerdown"),
        (["shutdown", "--halt"], "guest-shutdown", {"mode": "halt"}, "halt"),
        (["reboot"], "guest-shutdown", {"mode": "reboot"}, "reboot"),
        (
            ["shutdown", "--force"],
            "qga-shutdown",
            {"mode": "powerdown", "force": True},
            "powerdown",
        ),
        (
            ["shutdown", "--halt", "--force"],
            "qga-shutdown",
            {"mode": "halt", "force": True},
            "halt",
        ),
        (["reboot", "--force"], "qga-shutdown", {"mode": "reboot", "force": True}, "reboot"),
        (["suspend"], "guest-suspend-ram", {}, "suspend to ram"),
        (["suspend", "disk"], "guest-suspend-disk", {}, "suspend to disk"),
        (["suspend", "hybrid"], "guest-suspend-hybrid", {}, "suspend to hybrid"),
    ],
)
def test_power(
    start: Start, arguments: list[str], command: str, given: dict[str, Any], name: str
) -> None:
    peer = start({command: lambda _: NOTHING, "guest-ping": lambda _: {}})
    expected = (0, f"{peer.address}: {name} accepted\n", "")
    assert qgactl(*arguments, address=peer.address) == expected
    assert asked(peer, command) == [given]


def test_power_that_is_refused(start: Start) -> None:
    refused = OSError("GenericError", "there is no swap space")
    peer = start({"guest-suspend-disk": lambda _: refused, "guest-ping": lambda _: {}})
    status, out, err = qgactl("--json", "suspend", "disk", address=peer.address)
    assert (status, out) == (1, "")
    assert err == f"qgactl: {peer.address}: guest-suspend-disk: there is no swap space\n"


def test_call_of_what_answers_nothing_is_over_when_it_is_accepted(start: Start) -> None:
    entry = {"name": "qga-end", "enabled": True, "success-response": False}
    info = {"version": "1", "supported_commands": [entry]}
    handlers = {
        "guest-info": lambda _: info,
        "qga-end": lambda _: NOTHING,
        "guest-ping": lambda _: {},
    }
    peer = start(handlers)
    result = qgactl("--timeout", "inf", "call", "qga-end", "when=now", address=peer.address)
    assert result == (0, "null\n", "")
    assert asked(peer, "qga-end") == [{"when": "now"}]


class Clock:
    def __init__(self) -> None:
        self.ahead = 0

    @property
    def handlers(self) -> dict[str, Any]:
        return {
            "guest-get-time": lambda _: time.time_ns() + self.ahead,
            "guest-set-time": self.set,
            "guest-get-timezone": lambda _: {"offset": 0},
        }

    def set(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self.ahead = arguments.get("time", YEAR_2033) - time.time_ns()
        return {}


def test_the_clock(start: Start) -> None:
    clock = Clock()
    peer = start(clock.handlers)
    clock.ahead = -3600 * 10**9
    assert "behind the host's" in qgactl("time", address=peer.address)[1]
    assert qgactl("time", "--set", address=peer.address)[0] == 0
    assert abs(clock.ahead) < 60 * 10**9
    out = qgactl("time", "--set", "2033-05-18T03:33:20Z", address=peer.address)[1]
    assert out.startswith("Guest clock  2033-05-18 03:33:2")
    qgactl("time", "--set", "rtc", address=peer.address)
    assert asked(peer, "guest-set-time")[1:] == [{"time": YEAR_2033}, {}]


def test_resync(start: Start) -> None:
    step = {"name": "random", "result": "done", "text": "512 bits"}
    peer = start({"guest-get-time": lambda _: time.time_ns(), "qga-resync": lambda _: reply})
    reply = {"steps": [step]}
    status, out, err = qgactl("resync", address=peer.address)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[2].split() == ["random", "done", "512", "bits"]
    assert [" ".join(line.split()[:2]) for line in lines[3:]] == ["Clock before", "Clock after"]
    reply = {"steps": [step, {**step, "name": "dhcp", "result": "failed"}]}
    status, out, err = qgactl("resync", "--json", address=peer.address)
    assert (status, err) == (1, "")
    assert json.loads(out)["steps"] == reply["steps"]


def test_identity(start: Start) -> None:
    step = {"name": "hostname", "result": "failed", "text": "read-only"}
    peer = start({"qga-set-identity": lambda _: {"steps": [step], "remaining": ["nfs4 mount"]}})
    status, out, err = qgactl("identity", "--hostname", "web-2", address=peer.address)
    assert (status, err) == (1, "")
    assert [line.split() for line in out.splitlines()[2:]] == [
        ["hostname", "failed", "read-only"],
        ["Still", "old", "nfs4", "mount"],
    ]
    status, _, err = qgactl("identity", address=peer.address)
    assert status == 2
    assert "nothing to change: use --hostname NAME, --machine-id or --ssh-host-keys" in err


def test_grow_asks_for_what_was_typed(start: Start) -> None:
    growth = {"mountpoint": "/", "type": "ext4", "size": 2 << 30, "steps": [], "obstacles": ["no"]}
    peer = start({"qga-grow-filesystem": lambda _: growth})
    status, out, err = qgactl("grow", "/", "--dry-run", address=peer.address)
    assert (status, out.count("(2.0 GiB) has nowhere to grow"), err) == (0, 1, "qgactl: no\n")
    secret = qgactl("grow", "/", "--passphrase-stdin", address=peer.address, stdin="a b\nc\n")
    assert secret[0] == 0
    assert asked(peer, "qga-grow-filesystem") == [
        {"mountpoint": "/", "dry-run": True},
        {"mountpoint": "/", "dry-run": False, "passphrase": "a b"},
    ]
    assert qgactl("grow", "/", "--passphrase-stdin", address=peer.address, stdin="")[0] == 2


def test_trim_fails_where_nothing_could_be_trimmed(start: Start) -> None:
    paths: list[dict[str, Any]] = [{"path": "/", "error": "trim not supported"}]
    peer = start({"guest-fstrim": lambda _: {"paths": paths}})
    status, out, _ = qgactl("trim", "--minimum", "64K", address=peer.address)
    assert (status, out.splitlines()[-1].split()) == (1, ["/", "-", "trim", "not", "supported"])
    assert asked(peer, "guest-fstrim") == [{"minimum": 65536}]
    paths.append({"path": "/b", "trimmed": 1024, "minimum": 0})
    assert qgactl("trim", address=peer.address)[0] == 0


def test_processors_online_and_offline(start: Start) -> None:
    online = {0: True, 1: True, 2: True}

    def set_vcpus(arguments: dict[str, Any]) -> int:
        for done, wish in enumerate(arguments["vcpus"]):
            if wish["logical-id"] not in online:
                return done
            online[wish["logical-id"]] = wish["online"]
        return len(arguments["vcpus"])

    def get_vcpus(_: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"logical-id": n, "online": o, "can-offline": bool(n)} for n, o in online.items()]

    peer = start({"guest-set-vcpus": set_vcpus, "guest-get-vcpus": get_vcpus})
    status, out, _ = qgactl("vcpus", "--offline", "1-2", address=peer.address)
    assert (status, out.splitlines()[2:]) == (
        0,
        ["  0   online    no", "  1   offline   yes", "  2   offline   yes"],
    )
    status, _, err = qgactl("vcpus", "--online", "2,7", address=peer.address)
    assert (status, online) == (1, {0: True, 1: False, 2: True})
    assert err == "qgactl: processor 7 could not be taken online\n"
    assert qgactl("vcpus", address=peer.address)[0] == 0


def decoded(arguments: dict[str, Any]) -> tuple[str, bytes, bool]:
    password = base64.b64decode(arguments["password"])
    return arguments["username"], password, arguments["crypted"]


def test_a_password_from_standard_input(start: Start) -> None:
    peer = start({"guest-set-user-password": lambda _: {}})
    result = qgactl("passwd", "--stdin", "ann", address=peer.address, stdin="s ecret\nmore\n")
    assert result == (0, f"{peer.address}: password of ann set\n", "")
    qgactl("passwd", "--stdin", "--crypted", "ann", address=peer.address, stdin="$6$x")
    given = asked(peer, "guest-set-user-password")
    assert list(map(decoded, given)) == [("ann", b"s ecret", False), ("ann", b"$6$x", True)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_prompt_that_is_ended_leaves_the_terminal_as_it_was(
    start: Start, number: signal.Signals
) -> None:
    peer = start({})
    command = [*QGACTL, "passwd", "ann"]
    with Terminal(command, environment(peer.address)) as terminal:
        terminal.expect("New password: ")
        wait_for(lambda: not terminal.is_as_before, "nothing is echoed")
        os.kill(terminal.process.pid, number)
        assert terminal.wait() == 130
        assert "Traceback" not in terminal.shown
        assert terminal.is_as_before


def test_a_password_that_is_asked_for_is_not_shown(start: Start) -> None:
    peer = start({"guest-set-user-password": lambda _: {}})
    leader, terminal = pty.openpty()
    process = subprocess.Popen(
        [*ON_A_TERMINAL, *QGACTL, "passwd", "ann"],
        env=environment(peer.address),
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    seen = read_until(leader, b"New password: ")
    os.write(leader, b"secret\n")
    seen += read_until(leader, b"confirmation: ")
    os.write(leader, b"secret\n")
    out, _ = process.communicate(timeout=30)
    os.close(leader)
    assert (process.returncode, b"secret" in seen + out) == (0, False)
    assert list(map(decoded, asked(peer, "guest-set-user-password"))) == [("ann", b"secret", False)]


class Account:
    def __init__(self) -> None:
        self.keys = ["garbage", f"restrict {KEY.line}"]

    @property
    def handlers(self) -> dict[str, Any]:
        return {
            "guest-ssh-get-authorized-keys": lambda _: {"keys": self.keys},
            "guest-ssh-add-authorized-keys": self.add,
            "guest-ssh-remove-authorized-keys": self.remove,
        }

    def add(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self.keys = ([] if arguments["reset"] else self.keys) + arguments["keys"]
        return {}

    def remove(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self.keys = [key for key in self.keys if key not in arguments["keys"]]
        return {}


def test_ssh_keys(start: Start, tmp_path: Path) -> None:
    account = Account()
    address = start(account.handlers).address
    path = tmp_path / "key.pub"
    path.write_text(KEY.line)
    assert qgactl("ssh-keys", "list", "ann", address=address)[1].splitlines()[2:] == [
        "garbage       -",
        f"ssh-ed25519   {KEY.fingerprint}   me@home",
    ]
    assert qgactl("ssh-keys", "remove", "ann", str(path), address=address)[0] == 0
    assert account.keys == ["garbage"]
    qgactl("ssh-keys", "add", "ann", "-", address=address, stdin=KEY.line)
    assert account.keys == ["garbage", KEY.line]
    qgactl("ssh-keys", "add", "--reset", "ann", str(path), address=address)
    assert account.keys == [KEY.line]
    status, out, _ = qgactl("--json", "ssh-keys", "add", "ann", "--reset", address=address)
    assert (status, out, account.keys) == (0, "[]\n", [])
