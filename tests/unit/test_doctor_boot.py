"""What --doctor reports of the boot, under each init."""

from __future__ import annotations

from pathlib import Path

import pytest

from qga.doctor import boot
from qga.doctor.boot import diagnose_boot
from qga.doctor.unit import Unit
from qga.findings import Finding, failed, ok, warning
from qga.programs.run import Finished

UNIT = Unit("qemu-guest-agent.service", {}, [])
VSOCK = Unit("qemu-guest-agent-vsock.service", {}, [])
SCRIPT = "/etc/init.d/qemu-guest-agent"


def found(root: Path, unit: Unit | None = None) -> Finding:
    [finding] = diagnose_boot(unit, f"{root}/")
    return finding


def put(root: Path, path: str, text: str = "x", mode: int = 0o755) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)


INITS = {"OpenRC": "run/openrc/softlevel", "sysvinit": "run/initctl"}
LINKS = {
    "OpenRC": "etc/runlevels/default/qemu-guest-agent",
    "sysvinit": "etc/rc2.d/S01qemu-guest-agent",
}
ADVICE = {
    "OpenRC": "rc-update add qemu-guest-agent default",
    "sysvinit": "update-rc.d qemu-guest-agent defaults",
}


@pytest.mark.parametrize("init", INITS)
def test_a_script_starts_it(tmp_path: Path, init: str) -> None:
    put(tmp_path, INITS[init])
    assert found(tmp_path).status == "warning"
    put(tmp_path, SCRIPT[1:], mode=0o644)
    text = f"{SCRIPT} is not executable, so {init} does not start the agent at boot"
    assert found(tmp_path) == failed("boot", text, f"chmod +x {SCRIPT}")
    put(tmp_path, SCRIPT[1:])
    text = f"{SCRIPT} is not enabled in any runlevel of {init}"
    assert found(tmp_path) == failed("boot", text, ADVICE[init])
    put(tmp_path, LINKS[init])
    level = LINKS[init].split("/")[-2]
    assert found(tmp_path) == ok("boot", f"{SCRIPT} is enabled for {init} in {level}")


def test_a_link_that_stops_it_is_none_that_starts_it(tmp_path: Path) -> None:
    put(tmp_path, INITS["sysvinit"])
    put(tmp_path, SCRIPT[1:])
    put(tmp_path, "etc/rc2.d/K01qemu-guest-agent")
    put(tmp_path, "etc/rc6.d/S01qemu-guest-agent")
    assert found(tmp_path).status == "failed"


@pytest.mark.parametrize("unit", [UNIT, VSOCK])
def test_systemd_starts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: Unit) -> None:
    state = "disabled"
    monkeypatch.setattr(boot, "run", lambda _argv, _timeout: Finished(0, f"{state}\n"))
    name = unit.name.replace("vsock.service", "vsock.socket")
    text = f"nothing starts {unit.name} at boot"
    assert found(tmp_path, unit) == warning("boot", text, f"systemctl enable {name}")
    put(tmp_path, "usr/lib/udev/rules.d/99-qemu-guest-agent.rules")
    assert (found(tmp_path, unit).status == "ok") == (unit is UNIT)
    put(tmp_path, "etc/udev/rules.d/99-qemu-guest-agent.rules", "")
    assert found(tmp_path, unit).status == "warning"
    state = "enabled"
    assert found(tmp_path, unit) == ok("boot", f"{name} is enabled")


def test_another_init_is_named(tmp_path: Path) -> None:
    put(tmp_path, "proc/1/comm", "runit\n")
    assert "init is runit" in found(tmp_path).text
