"""`qgactl top` on a terminal, into a pipe and for programs."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.integration.client_agents import running
from tests.integration.qgactl_process import QGACTL, SLOW, environment, qgactl
from tests.unit.client_peer import Peer

PATIENCE = 30.0
ENTER, LEAVE, SHOW_CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running("ours", tmp_path_factory.mktemp("agent")) as address:
        yield address


class Terminal:
    """A terminal in which top runs."""

    def __init__(self, *arguments: str) -> None:
        self.ours, self.theirs = pty.openpty()
        self.before = termios.tcgetattr(self.theirs)
        self.shown = b""
        self.process = subprocess.Popen(
            [*QGACTL, "top", *arguments],
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            env={**environment(None), "TERM": "xterm", "LINES": "24"},
            start_new_session=True,
        )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)

    def wait_for(self, pattern: bytes) -> None:
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.shown):
            assert self.take(deadline - time.monotonic()), f"in vain: {pattern!r} {self.shown!r}"

    def take(self, timeout: float) -> bool:
        if not select.select([self.ours], [], [], max(0.0, timeout))[0]:
            return False
        self.shown += os.read(self.ours, 65536)
        return True

    def status(self) -> int:
        """Return its exit status, reading its output meanwhile."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            self.take(0.05)
            assert time.monotonic() < deadline
        while self.take(0):
            pass
        return self.process.returncode


def end_by_key(terminal: Terminal) -> None:
    os.write(terminal.ours, b"xq")


def end_by_interrupt(terminal: Terminal) -> None:
    os.kill(terminal.process.pid, signal.SIGINT)


def end_by_termination(terminal: Terminal) -> None:
    os.kill(terminal.process.pid, signal.SIGTERM)


def end_by_hangup(terminal: Terminal) -> None:
    os.kill(terminal.process.pid, signal.SIGHUP)


def end_by_quitting(terminal: Terminal) -> None:
    os.kill(terminal.process.pid, signal.SIGQUIT)


@pytest.mark.parametrize(
    "end", [end_by_key, end_by_interrupt, end_by_termination, end_by_hangup, end_by_quitting]
)
def test_a_live_view_ends_and_leaves_the_terminal_as_it_was(
    address: str, end: Callable[[Terminal], None]
) -> None:
    with Terminal(f"web={address}", "gone=unix:/nonexistent", "--interval", "0.1") as terminal:
        terminal.wait_for(rb"web .*\d %(.|\n)*web .*\d %")  # it is drawn again and again
        terminal.wait_for(rb"q quit +updated every 0.1 s")
        assert terminal.shown.startswith(ENTER)
        assert b"silent" in terminal.shown
        end(terminal)
        assert terminal.status() == 0
        assert terminal.shown.rindex(LEAVE) > terminal.shown.rindex(b"web")
        assert SHOW_CURSOR in terminal.shown
        assert b"Traceback" not in terminal.shown
        assert termios.tcgetattr(terminal.theirs) == terminal.before


def test_a_silent_guest_does_not_keep_the_picture_from_the_others(
    address: str, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        guests = (f"web={address}", f"old=unix:{tmp_path}/silent")
        options = ("--count", "2", "--interval", "3")
        status, out, err = qgactl("--timeout", "10", "top", *guests, *options)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == ["Guest", lines[1], "web", "old", "old:"] * 2
    assert lines[3].split()[1] == "silent"
    assert lines[4] == "old: no answer within 3 s"


def test_objects_for_programs(address: str) -> None:
    status, out, err = qgactl(
        "top", "--json", f"web={address}", "unix:/gone", "--count", "2", "--interval", "3"
    )
    assert (status, err) == (0, "")
    web, gone, *rest = map(json.loads, out.splitlines())
    assert len(rest) == 2
    assert gone["guest"] == "/gone"
    assert "No such file" in gone["error"]
    assert web["guest"] == "web"
    assert 0 <= web["cpu-percent"] <= 100
    assert 0 < web["memory"]["used-bytes"] < web["memory"]["total-bytes"]
    assert web["uptime-seconds"] < rest[0]["uptime-seconds"]
    assert set(web["network"]["lo"]) == {"rx-bytes", "tx-bytes"}


def test_it_is_the_guest_of_the_option_where_none_is_named(address: str) -> None:
    status, out, _ = qgactl("top", "--count", "1", address=address)
    assert status == 0
    assert "memory" in out


def test_it_is_those_of_this_host_where_none_is_named_at_all(address: str, tmp_path: Path) -> None:
    sockets = tmp_path / "var/run/qemu-server"
    sockets.mkdir(parents=True)
    host = {"QGA_HOST_ROOT": str(tmp_path)}
    assert qgactl("top", **host)[0::2] == (
        1,
        "qgactl: no running guest with an agent port was found; name one\n",
    )
    (sockets / "100.qga").symlink_to(address.partition(":")[2])
    status, out, _ = qgactl("top", "--count", "1", "--json", **host)
    assert status == 0
    assert json.loads(out)["guest"] == "100"


def test_an_interval_without_an_end_is_refused() -> None:
    assert qgactl("top", "--interval", "inf", "unix:/a")[0] == 2


def test_a_guest_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    status, out, err = qgactl("top", "nosuch", "--count", "1", QGA_HOST_ROOT=str(tmp_path))
    assert (status, err) == (3, "")
    assert out.splitlines()[-1].startswith("nosuch: no running guest with this name")
    status, out, _ = qgactl("top", "unix:/nonexistent", "--count", "1", "--json")
    assert (status, "No such file" in json.loads(out)["error"]) == (3, True)


def test_a_misspelt_name_is_reported_with_the_one_that_is_meant(
    address: str, tmp_path: Path
) -> None:
    sockets = tmp_path / "var/run/qemu-server"
    sockets.mkdir(parents=True)
    (sockets / "1000.qga").symlink_to(address.partition(":")[2])
    (tmp_path / "qgactl.toml").write_text(f'[guests]\nweb = "{address}"\n')
    host = {"QGA_HOST_ROOT": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    out, err = qgactl("top", "wbe", "1001", "--count", "1", **host)[1:]
    assert err == "qgactl: wbe: did you mean web?\n"
    assert "1001: no running guest with this name" in out
    assert "available: 1000; did you mean 1000?" in out


def test_only_silent_guests_are_a_failure(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        options = ("--count", "1", "--interval", "0.2")
        assert qgactl("--timeout", "0.5", "top", f"unix:{tmp_path}/silent", *options)[0] == 4


def test_a_first_answer_that_takes_its_time_has_rates(tmp_path: Path) -> None:
    """As with our agent, which imports psutil for the first reply."""
    metrics = import_module("qga.commands.metrics").Metrics(None)
    asked: list[float] = []

    def answer(_arguments: Any) -> Any:
        asked.append(time.monotonic())
        if len(asked) == 1:
            time.sleep(1.5)
        return metrics.qga_get_metrics()

    peer = Peer(tmp_path / "s", {"qga-get-metrics": answer})
    try:
        status, out, err = qgactl(*SLOW, "top", peer.address, "--count", "1", "--json")
    finally:
        peer.close()
    assert (status, err, len(asked)) == (0, "", 2)
    shown = json.loads(out)
    assert "cpu-percent" in shown
    assert shown["network"]


def test_time_without_an_end_is_a_time(address: str) -> None:
    options = ("--count", "1", "--interval", "0.2")
    status, out, err = qgactl("--timeout", "inf", "top", address, *options)
    assert (status, err) == (0, "")
    assert "memory" in out
