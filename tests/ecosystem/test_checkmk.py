"""`qgactl checkmk` as Checkmk's server reads it.

Checkmk's parsers are on no registry: PyPI's `checkmk` is a placeholder. So `read` follows the rules
of cmk/checkengine/parser, and SHAPES the examples in the heads of the plugins for sections
(cmk/plugins/collection/agent_based: df_section, diskstat, lnx_if, mem_used_sections, uptime).
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from qga.client.monitoring.checkmk import LONGEST_REASON, host_name, piggyback
from qga.client.monitoring.watch import Sighting, Target
from tests.guest.image import CHECKOUT
from tests.guest.vm import Guest
from tests.host.day import Day
from tests.integration.client_agents import running
from tests.integration.qgactl_process import QGACTL, SLOW, qgactl
from tests.unit.client_peer import Peer

pytestmark = pytest.mark.timeout(900)

module: Any = import_module("qga.commands.metrics")

Sections = dict[str, list[list[str]]]

# A line of each section. Checkmk takes the number of fields for what tells kinds of lines apart.
SHAPES = {
    "uptime": r"\d+\.\d\d",
    "cpu": r"(\d+\.\d\d ){3}\d+/\d+ \d+ \d+",
    "mem": r"\w+: \d+ kB",
    "df": r"\S+ \w+( \d+){3} \d+% /\S*|\[df_inodes_(start|end)\]",
    "diskstat": r"\d{10}|\d+ \d+ \S+( \d+){11}",
    "kernel": r"\d{10}|cpu\d*( \d+){10}",
    "lnx_if": r"[^ ]+( \d+){16}",
}


def read(output: str) -> dict[str, Sections]:
    """The fields of each line, by host and section."""
    hosts: dict[str, Sections] = {}
    host, lines, separator = "", None, None
    for line in output.encode().split(b"\n"):
        text = line.decode().strip()
        if not text:
            continue
        if line.startswith(b"<<<<") and line.endswith(b">>>>"):
            host, lines = text[4:-4], None
        elif line.startswith(b"<<<") and line.endswith(b">>>"):
            name, *options = text[3:-3].split(":")
            separators = [each[4:-1] for each in options if each.startswith("sep(")]
            separator = chr(int(separators[0])) if separators else None
            lines = hosts.setdefault(host, {}).setdefault(name, [])
        else:
            assert lines is not None, f"{line!r} is in no section"
            lines.append(text.split(separator))
    return hosts


@pytest.fixture(scope="module")
def hosts(web: Day, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Sections]]:
    """A booted guest, QEMU's agent on this machine, and one that is not there."""
    folder = tmp_path_factory.mktemp("checkmk")
    with running("original", folder) as theirs:
        words = ["web", f"qemus={theirs}", "gone=unix:/gone"]
        done = subprocess.run(
            [*QGACTL, *SLOW, "checkmk", *words],
            env=web.env,
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stderr == ""
    yield read(done.stdout)


def kernel(guest: Guest, path: str) -> list[list[str]]:
    return [line.split() for line in guest.run(["cat", path]).stdout.splitlines()]


def test_each_guest_is_a_host(hosts: dict[str, Sections]) -> None:
    states = {name: sections["local"][0][0] for name, sections in hosts.items()}
    assert states.keys() == {"web", "qemus", "gone"}
    assert states["web"].startswith('0 "QEMU guest agent" response_time=')
    assert states["gone"].startswith('2 "QEMU guest agent" - ')
    assert set(hosts["gone"]) == {"labels", "local"}
    assert json.loads(hosts["web"]["labels"][0][0]) == {"cmk/device_type": "vm"}


@pytest.mark.parametrize("section", SHAPES)
def test_lines_are_like_those_of_checkmks_agent(hosts: dict[str, Sections], section: str) -> None:
    lines = [" ".join(map(str.strip, fields)) for fields in hosts["web"][section]]
    assert lines
    assert [line for line in lines if not re.fullmatch(SHAPES[section], line)] == []


def test_qemus_agent_has_fewer_sections(hosts: dict[str, Sections]) -> None:
    ours, theirs = set(hosts["web"]), set(hosts["qemus"])
    assert ours - theirs == {"uptime", "cpu", "mem"}
    assert {"df", "kernel", "lnx_if", "diskstat"} <= theirs


def test_memory_is_that_of_the_kernel(hosts: dict[str, Sections], guest: Guest) -> None:
    real = {line[0]: int(line[1]) for line in kernel(guest, "/proc/meminfo")}
    shown = {name: int(figure) for name, figure, unit in hosts["web"]["mem"] if unit == "kB"}
    # What Checkmk's check mem_used needs.
    assert {"MemTotal:", "MemFree:", "Buffers:", "Cached:", "SwapTotal:", "SwapFree:"} <= set(shown)
    assert shown["MemTotal:"] == real["MemTotal:"]
    assert shown["MemFree:"] == pytest.approx(real["MemFree:"], rel=0.5)


def test_filesystems_are_those_of_df(hosts: dict[str, Sections], guest: Guest) -> None:
    lines = hosts["web"]["df"]
    start, end = lines.index(["[df_inodes_start]"]), lines.index(["[df_inodes_end]"])
    df = guest.run(["df", "--portability", "--print-type", "/"]).stdout.splitlines()[1].split()
    [shown] = [line for line in lines[:start] if line[-1] == "/"]
    assert len(shown) == 7
    assert (shown[0], shown[1], shown[2], shown[6]) == (df[0], df[1], df[2], "/")
    assert int(shown[3]) == pytest.approx(int(df[3]), rel=0.1)
    df = guest.run(["df", "--inodes", "/"]).stdout.splitlines()[1].split()
    [shown] = [line for line in lines[start + 1 : end] if line[-1] == "/"]
    assert shown[2] == df[1]
    assert int(shown[4]) == pytest.approx(int(df[3]), rel=0.01)


def test_processors_and_load(hosts: dict[str, Sections], guest: Guest) -> None:
    [moment], total, *each = hosts["web"]["kernel"]
    assert int(moment) > 10**9
    real = kernel(guest, "/proc/stat")
    assert [line[0] for line in [total, *each]] == [line[0] for line in real if "cpu" in line[0]]
    assert len(total) == 11
    # The kernel counts in the same unit, and has gone on since.
    assert 0 < int(total[4]) <= int(real[0][4])
    assert int(total[4]) == pytest.approx(int(real[0][4]), rel=0.3)
    [[*loads, threads, _, cpus]] = hosts["web"]["cpu"]
    assert len([float(load) for load in loads]) == 3
    assert int(threads.split("/")[1]) > 10
    assert int(cpus) == len(each)


def test_disks_and_interfaces(hosts: dict[str, Sections], guest: Guest) -> None:
    _moment, *disks = hosts["web"]["diskstat"]
    real = {line[2]: line for line in kernel(guest, "/proc/diskstats")}
    for line in disks:
        assert len(line) == 14
        assert 0 <= int(line[5]) <= int(real[line[2]][5])
    assert {"vda"} <= {line[2] for line in disks}
    for name, figures in hosts["web"]["lnx_if"]:
        assert len(figures.split()) == 16
        [line] = [each for each in kernel(guest, "/proc/net/dev") if each[0] == f"{name.strip()}:"]
        assert int(figures.split()[0]) <= int(line[1])


def test_uptime(hosts: dict[str, Sections], guest: Guest) -> None:
    [[seconds]] = hosts["web"]["uptime"]
    assert 0 < float(seconds) <= float(kernel(guest, "/proc/uptime")[0][0])


def hostile_metrics(_arguments: Any) -> Any:
    """Each text would be a header if it stood alone on a line."""
    header = "x\n<<<<victim>>>>\n<<<local>>>\n0 fine - fine"
    alone = "<<<<victim"
    honest = module.Metrics(None).qga_get_metrics()
    sizes = {"total-bytes": 2**20, "used-bytes": 1, "available-bytes": 1}
    return {
        **honest,
        "filesystems": [
            {"device": text, "mountpoint": other, "type": "ext4", "read-only": False, **sizes}
            for text, other in ((header, header), (alone, "/>>>>"), ("\u2028<<<local", "\x85>>>"))
        ],
        "disks": [{"name": text, "read-bytes": 1} for text in (header, alone, "a b\tc")],
        "network": [{"name": text, "rx-bytes": 1} for text in (header, alone, "a:b c")],
    }


def test_a_guest_begins_no_section(tmp_path: Path) -> None:
    liar = Peer(tmp_path / "liar", {"qga-get-metrics": hostile_metrics})
    try:
        status, out, _ = qgactl("--timeout", "30", "checkmk", f"li<<<<ar={liar.address}")
    finally:
        liar.close()
    assert status == 0
    [(host, sections)] = read(out).items()
    assert host == "li____ar"
    assert {*sections} == {
        *("labels", "local", "uptime", "cpu", "kernel", "mem", "df", "diskstat", "lnx_if")
    }
    assert len(sections["local"]) == 1
    inodes = {("[df_inodes_start]",), ("[df_inodes_end]",)}
    assert {len(line) for line in sections["df"] if tuple(line) not in inodes} == {7}
    assert {len(line) for line in sections["diskstat"][1:]} == {14}
    assert {len(line) for line in sections["lnx_if"]} == {2}


def test_the_error_of_a_guest_begins_no_section() -> None:
    error = "no\n<<<<victim>>>>\r<<<local>>>\u2028" + "x" * 10_000
    [line] = piggyback_lines(Sighting(Target("web", "unix:/gone"), 0, 1, None, error))
    assert line.startswith('2 "QEMU guest agent" - no_____victim')
    assert len(line) < LONGEST_REASON + 50


def piggyback_lines(sighting: Sighting) -> list[str]:
    """The lines that are neither headers nor labels."""
    lines = "\n".join(piggyback(sighting, 0)).splitlines()
    return [line for line in lines if not line.startswith(("<<<", "{"))]


@pytest.mark.parametrize(
    ("guest", "host"),
    [("web", "web"), ("web 1", "web_1"), ("a>>>>\n", "a_____"), ("", "_"), (".", "_"), ("ü", "_")],
)
def test_names_of_hosts(guest: str, host: str) -> None:
    assert host_name(guest) == host


def test_two_guests_with_one_host_name(tmp_path: Path) -> None:
    status, out, err = qgactl("checkmk", "a 1=unix:/gone", "a_1=unix:/gone", "b=unix:/gone")
    assert (status, set(read(out))) == (0, {"a_1", "b"})
    assert err == "qgactl: a_1 is left out: for Checkmk it has the name of a 1, a_1\n"


def test_the_plugin_of_checkmks_agent(web: Day) -> None:
    done = subprocess.run(
        [CHECKOUT / "packaging/checkmk/qga"],
        env=web.env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(read(done.stdout)) == {"web"}
