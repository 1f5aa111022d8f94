"""Metrics are those of the guest's kernel, and the host's tools show them."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from . import service
from .agent_socket import AgentError, AgentSocket
from .vm import ORIGINAL_PORT, Guest

# The first test may have to build the image.
pytestmark = pytest.mark.timeout(900)

QGACTL = [sys.executable, "-c", "from qga.ctl.main import main; main()"]
MEBIBYTE = 1024 * 1024
SLEEPER = "sleeper.service"


def numbers(guest: Guest, path: str, pattern: str) -> list[int]:
    """The numbers that a pattern finds in a file of the guest."""
    found = re.search(pattern, guest.run(["cat", path]).stdout, re.MULTILINE)
    assert found, f"{pattern} is not in {path}"
    return [int(figure) for figure in found.groups()]


def entry(entries: list[dict[str, Any]], key: str, value: str) -> dict[str, Any]:
    return next(each for each in entries if each[key] == value)


def test_memory_is_that_of_meminfo(guest: Guest, agent: AgentSocket) -> None:
    memory = agent.execute("qga-get-memory")
    for member, name in (("total-bytes", "MemTotal"), ("slab-bytes", "Slab")):
        [kibibytes] = numbers(guest, "/proc/meminfo", rf"^{name}: +(\d+) kB")
        assert memory[member] == pytest.approx(kibibytes * 1024, rel=0.05)
    assert memory["used-bytes"] + memory["free-bytes"] <= memory["total-bytes"]
    assert agent.execute("qga-get-metrics")["memory"].keys() == memory.keys()


def test_memory_that_a_program_takes_is_used(guest: Guest, agent: AgentSocket) -> None:
    before = agent.execute("qga-get-memory")
    guest.run(["/bin/sh", "-ec", "head -c 64M /dev/zero >/run/ballast"])
    after = agent.execute("qga-get-memory")
    guest.run(["rm", "/run/ballast"])
    assert before["available-bytes"] - after["available-bytes"] > 48 * MEBIBYTE
    assert after["shared-bytes"] - before["shared-bytes"] > 60 * MEBIBYTE


def test_counters_lie_between_those_of_the_kernel(guest: Guest, agent: AgentSocket) -> None:
    def user() -> int:
        return sum(numbers(guest, "/proc/stat", r"^cpu +(\d+)")) * 10

    before = user()
    metrics = agent.execute("qga-get-metrics")
    assert before <= metrics["cpu"]["user-ms"] <= user()
    assert [each["cpu"] for each in metrics["cpus"]] == [0, 1]
    total = sum(each["user-ms"] for each in metrics["cpus"])
    assert total == pytest.approx(metrics["cpu"]["user-ms"], abs=50)


def test_an_offline_processor_is_left_out_and_the_others_keep_their_numbers(
    guest: Guest, agent: AgentSocket
) -> None:
    switch = "/sys/devices/system/cpu/cpu1/online"
    guest.run(["/bin/sh", "-c", f"echo 0 >{switch}"])
    try:
        assert [each["cpu"] for each in agent.execute("qga-get-metrics")["cpus"]] == [0]
    finally:
        guest.run(["/bin/sh", "-c", f"echo 1 >{switch}"])


def test_times_and_boot(guest: Guest, agent: AgentSocket) -> None:
    before = float(guest.run(["cat", "/proc/uptime"]).stdout.split()[0])
    metrics = agent.execute("qga-get-metrics")
    after = float(guest.run(["cat", "/proc/uptime"]).stdout.split()[0])
    assert before <= metrics["uptime-ms"] / 1000 + 0.02
    assert metrics["uptime-ms"] / 1000 <= after + 0.02
    assert metrics["boot-time"] == pytest.approx(
        numbers(guest, "/proc/stat", r"btime (\d+)")[0], abs=2
    )


def test_a_disk_counts_what_is_written(guest: Guest, agent: AgentSocket) -> None:
    before = entry(agent.execute("qga-get-metrics")["disks"], "name", "vda")
    guest.run(["dd", "if=/dev/zero", "of=/root/ballast", "bs=1M", "count=8", "oflag=direct"])
    after = agent.execute("qga-get-metrics")
    guest.run(["rm", "/root/ballast"])
    disk = entry(after["disks"], "name", "vda")
    assert disk["write-bytes"] - before["write-bytes"] >= 8 * MEBIBYTE
    assert disk["write-ops"] > before["write-ops"]
    assert disk["virtual"] is False
    real = {each["name"] for each in after["disks"] if not each["virtual"]}
    assert not {name for name in real if re.fullmatch(r"(loop|ram)\d+|.d[a-z]\d+", name)}


def test_filesystems_are_as_df_has_them(guest: Guest, agent: AgentSocket) -> None:
    columns = "source,fstype,size,used,avail,itotal,iavail"
    shown = guest.run(["df", "--block-size=1", f"--output={columns}", "/"]).stdout
    device, kind, *figures = shown.splitlines()[1].split()
    filesystem = entry(agent.execute("qga-get-metrics")["filesystems"], "mountpoint", "/")
    assert (filesystem["device"], filesystem["type"], filesystem["read-only"]) == (
        device,
        kind,
        False,
    )
    members = ("total-bytes", "used-bytes", "available-bytes", "inodes", "inodes-free")
    assert [filesystem[member] for member in members] == pytest.approx(
        [int(figure) for figure in figures], rel=0.01
    )
    code = entry(agent.execute("qga-get-metrics")["filesystems"], "mountpoint", "/opt/qga")
    assert code["read-only"] is True


def test_the_network_counts(guest: Guest, agent: AgentSocket) -> None:
    before = entry(agent.execute("qga-get-metrics")["network"], "name", "lo")
    guest.python("import socket; s = socket.socket(2, 2); s.sendto(bytes(1000), ('127.0.0.1', 9))")
    after = entry(agent.execute("qga-get-metrics")["network"], "name", "lo")
    assert after["tx-bytes"] - before["tx-bytes"] >= 1000
    assert after["rx-packets"] > before["rx-packets"]


def test_processes(guest: Guest, agent: AgentSocket) -> None:
    before = agent.execute("qga-get-metrics")["processes"]
    options = ["--service-type=exec", "--collect"]
    guest.run(["systemd-run", f"--unit={SLEEPER}", *options, "sleep", "1000"])
    try:
        pid = service.main_pid(guest, SLEEPER)
        guest.run(["systemctl", "kill", "--signal=STOP", SLEEPER])
        service.wait_for(lambda: service.state_of(guest, pid) == "T", "it to be stopped")
        after = agent.execute("qga-get-metrics")["processes"]
    finally:
        guest.run(["systemctl", "kill", "--signal=KILL", SLEEPER])
    assert after["stopped"] == before["stopped"] + 1
    [threads] = numbers(guest, "/proc/loadavg", r"/(\d+)")
    assert after["threads"] == pytest.approx(threads, abs=10)
    states = ("running", "sleeping", "disk-sleep", "stopped", "zombie", "idle")
    assert sum(after[state] for state in states) == after["total"]


def test_an_agent_that_nobody_asks_has_no_psutil(guest: Guest) -> None:
    guest.run(["systemctl", "restart", service.UNIT])
    pid = service.main_pid(guest)

    def has_psutil() -> bool:
        return "psutil" in guest.run(["cat", f"/proc/{pid}/maps"]).stdout

    with guest.connect() as agent:
        agent.execute("guest-get-load")
        assert not has_psutil()
        agent.execute("qga-get-memory")
        assert has_psutil()


def test_not_while_frozen(agent: AgentSocket) -> None:
    agent.execute("guest-fsfreeze-freeze")
    try:
        with pytest.raises(AgentError, match="has been disabled"):
            agent.execute("qga-get-metrics")
    finally:
        agent.execute("guest-fsfreeze-thaw")


def run(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*QGACTL, "--timeout", "20", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )


@contextmanager
def silent(path: Path) -> Iterator[str]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield f"silent=unix:{path}"


def test_the_exporter_and_a_guest_that_does_not_answer(guest: Guest, tmp_path: Path) -> None:
    with silent(tmp_path / "silent") as other:
        guests = [f"web=unix:{guest.channel_path()}", other]
        with run("exporter", "--listen", "127.0.0.1:0", *guests) as process:
            assert process.stdout
            address = process.stdout.readline().strip()
            try:
                with urllib.request.urlopen(address, timeout=120) as response:
                    text = response.read().decode()
            finally:
                process.terminate()
    values = dict(re.findall(r"^(qga_\w+\{[^}]*\}) (\S+)$", text, re.MULTILINE))
    assert values['qga_up{guest="web"}'] == "1.0"
    assert values['qga_up{guest="silent"}'] == "0.0"
    [kibibytes] = numbers(guest, "/proc/meminfo", r"^MemTotal: +(\d+) kB")
    assert float(values['qga_memory_total_bytes{guest="web"}']) == kibibytes * 1024
    assert float(values['qga_cpu_seconds_total{cpu="1",guest="web",mode="idle"}']) > 0
    root = '{device="/dev/vda",fstype="ext4",guest="web",mountpoint="/"}'
    assert float(values[f"qga_filesystem_size_bytes{root}"]) > 0


def test_top_of_a_guest(guest: Guest) -> None:
    web = f"web=unix:{guest.channel_path()}"
    with run("top", "--json", "--count", "1", "--interval", "8", web) as process:
        assert process.stdout
        [line] = process.stdout.read().splitlines()
    shown = json.loads(line)
    assert shown["guest"] == "web"
    assert set(shown["cpus-percent"]) == {"0", "1"}
    assert {"/", "/opt/qga"} <= set(shown["filesystems"])


def test_no_metrics_of_the_original_are_missed(guest: Guest) -> None:
    from qga.client import GuestAgent
    from qga.client.monitoring.metrics import read_metrics

    original = guest.original
    assert original
    original.close()  # the port takes one client at a time
    try:
        with GuestAgent(f"unix:{guest.channel_path(ORIGINAL_PORT)}", 60) as agent:
            found = {key[0] for key in read_metrics(agent, 60)}
    finally:
        guest.original = guest.connect(ORIGINAL_PORT)
    assert {"cpu_seconds_total", "filesystem_size_bytes", "disk_read_bytes_total"} <= found
    assert "network_receive_bytes_total" in found
