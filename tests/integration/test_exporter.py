"""`qgactl exporter` as Prometheus sees it, with real agents and guests that do not answer."""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.client_agents import running
from tests.integration.qgactl_process import QGACTL, environment, qgactl
from tests.unit.client_peer import HANG_UP, Peer


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an exporter for our agent, the original, a silent one and a missing one."""
    folder = tmp_path_factory.mktemp("exporter")
    (folder / "ours").mkdir()
    (folder / "original").mkdir()
    with (
        running("ours", folder / "ours") as ours,
        running("original", folder / "original") as original,
        socket.socket(socket.AF_UNIX) as silent,
    ):
        silent.bind(str(folder / "silent"))
        silent.listen()
        guests = [f"ours={ours}", f"original={original}", f"silent=unix:{folder}/silent"]
        guests.append(f"gone=unix:{folder}/gone")
        arguments = ["--timeout", "3", "exporter", "--listen", "127.0.0.1:0", *guests]
        with exporter(arguments, folder / "stderr") as address:
            yield address


@contextmanager
def exporter(arguments: list[str], errors: Path, **variables: str) -> Iterator[str]:
    """A running exporter; yields the address that it prints."""
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            [*QGACTL, *arguments],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**environment(None), **variables},
        )
    try:
        assert process.stdout
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate(timeout=30)


def fetch(address: str) -> str:
    with urllib.request.urlopen(address, timeout=60) as response:
        text: str = response.read().decode()
        return text


@pytest.fixture(scope="module")
def scraped(place: str) -> dict[str, dict[str, Any]]:
    """The samples by guest and name, one for each name."""
    found: dict[str, dict[str, Any]] = {}
    for family in text_string_to_metric_families(fetch(place)):
        for sample in family.samples:
            found.setdefault(sample.labels["guest"], {})[sample.name] = sample
    return found


def test_who_answers_and_who_does_not(scraped: dict[str, dict[str, Any]]) -> None:
    up = {guest: samples["qga_up"].value for guest, samples in scraped.items()}
    assert up == {"ours": 1, "original": 1, "silent": 0, "gone": 0}


def test_the_silent_one_is_waited_for_no_longer_than_its_time(
    scraped: dict[str, dict[str, Any]],
) -> None:
    assert scraped["silent"]["qga_scrape_duration_seconds"].value >= 3
    assert set(scraped["silent"]) == {"qga_up", "qga_scrape_duration_seconds"}


def test_what_each_agent_has(scraped: dict[str, dict[str, Any]]) -> None:
    ours, original = set(scraped["ours"]), set(scraped["original"])
    assert original < ours
    assert {"qga_cpu_seconds_total", "qga_network_receive_bytes_total"} <= original
    assert {"qga_memory_available_bytes", "qga_load1", "qga_uptime_seconds"} <= ours - original


def test_pages(place: str) -> None:
    front = place.removesuffix("metrics")
    assert 'href="/metrics"' in fetch(front)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetch(f"{front}other")


def test_a_client_that_leaves_before_its_page_ends_nothing_else(place: str) -> None:
    """Writing to its connection would be a SIGPIPE."""
    port = int(place.rpartition(":")[2].partition("/")[0])
    with socket.create_connection(("127.0.0.1", port)) as leaving:
        leaving.sendall(b"GET /metrics?guest=silent HTTP/1.0\r\n\r\n")
        leaving.shutdown(socket.SHUT_WR)
        leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        time.sleep(0.5)  # until the request is read
    fetch(f"{place}?guest=silent")  # which ends later
    assert 'qga_up{guest="ours"} 1.0' in fetch(place)


def test_guests_of_this_host_come_and_go(tmp_path: Path) -> None:
    sockets = tmp_path / "host/var/run/qemu-server"
    sockets.mkdir(parents=True)
    host = {"QGA_HOST_ROOT": str(tmp_path / "host")}
    arguments = ["exporter", "--listen", "127.0.0.1:0"]
    with (
        running("ours", tmp_path) as agent,
        exporter(arguments, tmp_path / "errors", **host) as address,
    ):
        assert "qga_up{" not in fetch(address)
        (sockets / "100.qga").symlink_to(agent.partition(":")[2])
        assert 'qga_up{guest="100"} 1.0' in fetch(address)
        (sockets / "100.qga").unlink()
        assert "qga_up{" not in fetch(address)


def test_a_guest_that_syncs_and_is_silent_then_is_one_line_in_the_log(tmp_path: Path) -> None:
    released = threading.Event()

    def held(_arguments: Any) -> Any:
        released.wait(60)
        return HANG_UP

    peer = Peer(tmp_path / "silent", {"qga-get-metrics": held})
    arguments = ["--timeout", "0.5", "exporter", "--listen", "127.0.0.1:0", f"web={peer.address}"]
    try:
        with exporter(arguments, tmp_path / "errors") as address:
            for _ in range(4):
                assert 'qga_up{guest="web"} 0.0' in fetch(address)
                time.sleep(0.1)
            log = (tmp_path / "errors").read_text()
    finally:
        released.set()
        peer.close()
    assert log == "qgactl: web: does not answer in time\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["x:y"], "'x:y' is not the address of an agent, expected: unix:PATH"),
        (["unix:/a", "unix:/a"], "two guests are called '/a'; use LABEL=ADDRESS"),
        (["--listen", "1", "unix:/a"], "'1' is not ADDR:PORT, such as 127.0.0.1:9741"),
        (["--listen", "[::1]:99999", "unix:/a"], "'[::1]:99999' is not ADDR:PORT"),
    ],
)
def test_wrong_usage(arguments: list[str], complaint: str) -> None:
    status, out, err = qgactl("exporter", *arguments)
    assert (status, out) == (2, "")
    assert complaint in err


def test_a_port_that_is_taken() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        place = "{}:{}".format(*other.getsockname())
        status, _, err = qgactl("exporter", "--listen", place, "unix:/a")
    assert (status, err) == (1, f"qgactl: cannot listen on {place}: Address already in use\n")
