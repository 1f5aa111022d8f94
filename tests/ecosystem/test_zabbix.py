"""The UserParameters in Debian's Zabbix agent, which asks a booted guest by `qgactl zabbix`."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.guest.image import CHECKOUT
from tests.guest.vm import Guest
from tests.host.day import Day
from tests.integration.qgactl_process import qgactl

pytestmark = pytest.mark.timeout(900)

FETCH = CHECKOUT / "packaging/fetch-program"
AGENT = ["bookworm", "zabbix-agent2", "usr/sbin/zabbix_agent2"]
PARAMETERS = CHECKOUT / "packaging/zabbix/qga.conf"
SECONDS = 30
"""Of patience with a guest whose processor is emulated; the agent's limit."""

Ask = Callable[[str], str]


@pytest.fixture(scope="module")
def ask(web: Day, tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Asks Zabbix's agent for the value of an item."""
    done = subprocess.run([FETCH, *AGENT], capture_output=True, text=True, check=True)
    folder = tmp_path_factory.mktemp("zabbix")
    patient = folder / "qga.conf"
    patient.write_text(PARAMETERS.read_text().replace("--timeout 2", f"--timeout {SECONDS}"))
    configuration = folder / "zabbix_agent2.conf"
    configuration.write_text(
        f"Server=127.0.0.1\nListenIP=127.0.0.1\nHostname=host\nTimeout={SECONDS}\n"
        f"LogFile={folder}/log\nInclude={patient}\n"
    )
    environment = {name: value for name, value in web.env.items() if name != "QGA_CONNECT"}

    def answer(item: str) -> str:
        agent = [done.stdout.strip(), "-c", str(configuration), "-t", item]
        shown = subprocess.run(
            agent, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        found = re.fullmatch(r"\S.*?\s+\[(s\||m\|)?(.*)\]\s*", shown.stdout, re.DOTALL)
        assert found, shown
        return found[2]

    return answer


def listed(text: str) -> list[dict[str, Any]]:
    entities: list[dict[str, Any]] = json.loads(text)
    # What Zabbix requires of low-level discovery.
    assert all(re.fullmatch(r"\{#[A-Z0-9_.]+\}", macro) for each in entities for macro in each)
    return entities


def test_guests(ask: Ask) -> None:
    assert listed(ask("qga.guests")) == [{"{#GUEST}": "web"}]


def test_what_a_guest_has(ask: Ask, guest: Guest) -> None:
    filesystems = listed(ask("qga.filesystems[web]"))
    assert {"{#FSNAME}": "/", "{#FSTYPE}": "ext4"}.items() <= next(
        each.items() for each in filesystems if each["{#FSNAME}"] == "/"
    )
    links = guest.run(["ls", "/sys/class/net"]).stdout.split()
    assert {each["{#IFNAME}"] for each in listed(ask("qga.interfaces[web]"))} == set(links)
    disks = {each["{#DEVNAME}"] for each in listed(ask("qga.disks[web]"))}
    assert "vda" in disks
    assert disks <= set(guest.run(["ls", "/sys/block"]).stdout.split())


def test_values(ask: Ask, guest: Guest) -> None:
    [total] = re.findall(r"MemTotal: +(\d+) kB", guest.run(["cat", "/proc/meminfo"]).stdout)
    assert ask("qga.value[web,memory_total_bytes]") == str(int(total) * 1024)
    blocks = guest.run(["stat", "--file-system", "--format=%b %S", "/"]).stdout.split()
    size = int(blocks[0]) * int(blocks[1])
    assert ask("qga.value[web,filesystem_size_bytes,/]") == str(size)
    assert float(ask("qga.value[web,cpu_seconds_total,0,idle]")) > 0
    assert ask("qga.up[web]") == "1"


def test_all_values_at_once(ask: Ask) -> None:
    values = json.loads(ask("qga.values[web]"))
    [root] = [
        each
        for each in values
        if each["name"] == "filesystem_files" and each["labels"]["mountpoint"] == "/"
    ]
    assert root["value"] > 100
    assert {"load1", "uptime_seconds", "processes"} <= {each["name"] for each in values}


def test_a_guest_that_is_not_there(ask: Ask) -> None:
    assert ask("qga.up[nobody]") == "0"
    assert ask("qga.value[nobody,load1]").startswith("qgactl: nobody: ")


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("qga.value[web,lod1]", "there is no metric 'lod1'"),
        ("qga.value[web,filesystem_size_bytes,/none]", "does not report filesystem_size_bytes /no"),
        ("qga.value[web,processes]", "several values are called 'processes'; add state"),
    ],
)
def test_values_that_are_none(ask: Ask, item: str, reason: str) -> None:
    assert reason in ask(item)


@pytest.mark.parametrize("word", ["$(id)", "`id`", "a;b", "--help", "unix:/run/other"])
def test_words_of_the_server_are_only_names(ask: Ask, word: str) -> None:
    """The agent refuses what a shell would run; what is left is the name of a guest."""
    answer = ask(f"qga.up[{word}]")
    assert answer == "0" or "is not allowed" in answer or "use a name that" in answer
    assert "uid=" not in answer


def test_a_wrong_kind() -> None:
    status, _, err = qgactl("zabbix", "web", "--discover", "cats")
    assert status == 2
    assert "--discover" in err


@pytest.mark.parametrize("words", ["", ",up", ",load1"])
def test_an_item_without_a_guest(words: str, tmp_path: Path) -> None:
    """Zabbix's agent passes an empty word, as for `qga.up[]`."""
    nowhere = {"XDG_CONFIG_HOME": str(tmp_path), "QGA_HOST_ROOT": str(tmp_path)}
    status, out, err = qgactl("zabbix", "--", *words.split(","), **nowhere)
    assert (status, out) == (2, "")
    assert "no guest given: qgactl zabbix GUEST; `qgactl list` shows the guests" in err
