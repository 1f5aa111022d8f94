"""What the agent imports: little at its start, and nothing while filesystems are frozen."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guest.image import install
from tests.integration.agent_process import Client, request, wait_for

LARGE = {"collections", "contextlib", "ctypes", "enum", "functools", "json", "re", "signal"}
LARGE |= {"subprocess", "threading", "types", "typing"}

# Runs the agent, and writes what it imports, one name a line, with the state it was in.
OBSERVED = """
import sys

class Finder:
    def find_spec(name, path=None, target=None):
        state = "frozen" if any(log.frozen for log in logs) else "normal"
        print(state, name, file=names, flush=True)

names, logs = open(sys.argv.pop(1), "w"), []
sys.path.insert(0, sys.argv.pop(1))
sys.meta_path.insert(0, Finder)
from qga.service.log import Log
made = Log.__init__

def remember(self, *arguments, **more):
    made(self, *arguments, **more)
    logs.append(self)

Log.__init__ = remember
from qga.cli import main
sys.exit(main())
"""

# Freezes the agent, not the disk.
PLUGIN = """
from qga import CommandGroup, command

class Frost(CommandGroup):
    @command(blocking=True)
    def test_freeze(self) -> None:
        self.agent.freeze(60)

    @command(blocking=True, frozen=True)
    def test_thaw(self) -> None:
        self.agent.thaw()
"""

SIGNS_OF_LIFE = (
    request("guest-ping"),
    request("guest-sync", id=1),
    request("guest-info"),
)
ODD = (
    b'\xff{"execute": "guest-sync-delimited", "arguments": {"id": 7}}',
    b'{"execute": "guest-sync", "arguments": {"id": "\\ud800 \\u00e4 ' + "\u00e9".encode() + b'"}}',
    b'{"execute": "guest-ping"}}',
    b'{"execute": guest}',
    b'{"execute": "guest-sync", "arguments": {"id": ' + b"[" * 1000 + b"]" * 1000 + b"}}",
    request("guest-info", no_such_argument=[]),
    request("guest-fsfreeze-status"),
    request("qga-get-freeze"),
    request("guest-exec", path="/bin/true"),
    request("guest-get-osinfo"),
    request("guest-file-write", handle=1, buf_b64="QUJD" * 8000),
)


class Observed:
    """An agent whose imports are known."""

    def __init__(self, folder: Path, has_plugin: bool) -> None:
        place, plugins, script = folder / "qga", folder / "plugins", folder / "observed.py"
        settings = folder / "qemu-ga.conf"
        place.mkdir()
        plugins.mkdir(mode=0o755)
        (plugins / "frost.py").write_text(PLUGIN)
        script.write_text(OBSERVED)
        settings.write_text(f"[general]\nplugin-dir={plugins}\n" if has_plugin else "")
        install(place, str(place), sys.executable)
        self._names, self._path = folder / "names", folder / "socket"
        self._argv = [sys.executable, "-ISXutf8", str(script), str(self._names), str(place)]
        self._argv += ["-m", "unix-listen", "-p", str(self._path), "-t", str(folder)]
        self._argv += ["-c", str(settings)]

    def start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self._argv)
        wait_for(self._path.exists, "the agent listens")
        return process

    def connect(self) -> Client:
        connection = socket.socket(socket.AF_UNIX)
        wait_for(lambda: not connection.connect_ex(str(self._path)), "the agent accepts")
        return Client(connection)

    def imported(self, state: str) -> set[str]:
        lines = self._names.read_text().splitlines()
        return {name for at, _, name in (line.partition(" ") for line in lines) if at == state}


def test_an_agent_that_is_only_pinged_stays_small(tmp_path: Path) -> None:
    observed = Observed(tmp_path, has_plugin=False)
    process = observed.start()
    try:
        with observed.connect() as client:
            for asked in SIGNS_OF_LIFE:
                client.send(asked)
                client.result()
            client.send(b"\xff" + request("guest-sync-delimited", id=7) + b"\n")
            assert b"stray" in client.line()
            assert client.line() == b'\xff{"return": 7}\n'
        names = observed.imported("normal")
        assert "qga.commands.liveness" in names
        assert not names & LARGE
        assert not {"qga.commands.exec", "qga.plugin.schema"} & names
        with observed.connect() as client:
            client.call("guest-get-osinfo")
        assert "qga.commands.system" in observed.imported("normal")
    finally:
        process.kill()  # one that is frozen does not end otherwise
        process.wait()


@pytest.mark.parametrize(
    "malformed",
    [
        b'{"execute": nonsense}',
        b'{"execute": "guest-ping", "id": "\\x"}',
        b'{"execute": "guest-ping",}',
    ],
)
def test_malformed_json_is_the_first_thing_that_it_hears(tmp_path: Path, malformed: bytes) -> None:
    observed = Observed(tmp_path, has_plugin=False)
    process = observed.start()
    try:
        with observed.connect() as client:
            client.send(malformed + b"\n")
            assert b"JSON parse error" in client.line()
            assert client.call("guest-ping") == {}
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("way", ["freezes", "starts frozen"])
def test_nothing_is_imported_while_frozen(tmp_path: Path, way: str) -> None:
    observed = Observed(tmp_path, has_plugin=True)
    if way == "starts frozen":
        (tmp_path / "qga.state.isfrozen").touch()
    process = observed.start()
    try:
        with observed.connect() as client:
            if way == "freezes":
                client.call("test-freeze")
            before = observed.imported("frozen")
            for asked in ODD:
                client.send(asked + b"\n")
            client.send(request("guest-sync", id=99))
            while client.line() != b'{"return": 99}\n':
                pass
            client.call("test-thaw")
        assert observed.imported("frozen") == before
        assert not (tmp_path / "qga.state.isfrozen").exists()
        if way == "freezes":
            assert not before
    finally:
        process.kill()  # one that is frozen does not end otherwise
        process.wait()
