"""Cockpit on this machine with the page of this checkout, and a browser that has it open.

No account is used: cockpit-ws runs the bridge for whoever connects, and listens on loopback only.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from tests.ecosystem.ports import free_port
from tests.guest.image import CHECKOUT

SERVER = "/usr/lib/cockpit/cockpit-ws"
# The bridge would start a bus and an agent of its own, which outlive it. 337 ends when it asks
# for the second time for a bus that is not there.
BUSES = ("DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS")
NO_AGENT = {"SSH_AUTH_SOCK": "/nonexistent"}
# A user who is not root, without an account for it: files of root belong to it.
AS_DAEMON = ("unshare", "--user", "--map-user=1", "--map-group=1", "--")
BUS = """\
<busconfig>
  <listen>unix:path={path}</listen>
  <policy context="default">
    <allow user="*"/> <allow own="*"/> <allow send_destination="*"/> <allow receive_sender="*"/>
  </policy>
</busconfig>
"""
# Chromium has no sandbox for root, and containers have little /dev/shm.
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--lang=en",
)


def install(folder: Path) -> Path:
    """Install the page as the packages do; returns the directory for XDG_DATA_DIRS."""
    subprocess.run([CHECKOUT / "packaging/fetch-npm"], check=True)
    shutil.copytree(CHECKOUT / "cockpit", folder / "cockpit/qga")
    return folder


@contextmanager
def served(env: Mapping[str, str], data: Path, launcher: Sequence[str] = ()) -> Iterator[str]:
    """Cockpit with this environment; its address."""
    port = free_port()
    argv = [*launcher, SERVER, "--no-tls", "--address=127.0.0.1", f"--port={port}"]
    argv += ["--local-session=cockpit-bridge"]
    environment = {**env, **NO_AGENT, "XDG_DATA_DIRS": f"{data}:/usr/share"}
    with bus() as address, ended(argv, {**environment, **dict.fromkeys(BUSES, address)}) as server:
        wait_for(port, server)
        yield f"http://127.0.0.1:{port}"


@contextmanager
def bus() -> Iterator[str]:
    """A bus without services; its address."""
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder) / "bus.conf"
        configuration.write_text(BUS.format(path=f"{folder}/bus"))
        argv = ["dbus-daemon", f"--config-file={configuration}", "--nofork", "--print-address"]
        with ended(argv, os.environ, stdout=subprocess.PIPE) as daemon:
            assert daemon.stdout
            yield daemon.stdout.readline().decode().strip()


@contextmanager
def ended(
    argv: Sequence[str], env: Mapping[str, str], stdout: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that is ended when it is not needed any more."""
    with subprocess.Popen(argv, env=env, stdout=stdout) as process:
        try:
            yield process
        finally:
            process.terminate()


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while server.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("cockpit-ws does not listen")


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """Debian's Chromium, without a window."""
    options = webdriver.ChromeOptions()
    for option in OPTIONS:
        options.add_argument(option)
    options.binary_location = "/usr/bin/chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, Service("/usr/bin/chromedriver"))
    try:
        yield browser
    finally:
        browser.quit()
