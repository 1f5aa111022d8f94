"""The trail of what the host has done, on systems without the journal."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.agent_process import PATIENCE, AgentProcess, listening

_WITH_SYSLOG_AT = """
import sys
from qga.service import sinks
sinks._SYSLOG = sys.argv[1]
from qga.cli import main
sys.exit(main(sys.argv[sys.argv.index("qga") + 1:]))
"""


@pytest.fixture
def syslog(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(tmp_path / "syslog"))
        syslog.settimeout(PATIENCE)
        yield syslog


def launcher(folder: Path) -> list[str]:
    return [sys.executable, "-c", _WITH_SYSLOG_AT, str(folder / "syslog")]


def change_something(agent: AgentProcess) -> None:
    with agent.connect() as client:
        client.call("guest-exec", path="/bin/true")
        handle = client.call("guest-file-open", path="/dev/null", mode="w")
        client.call("guest-file-close", handle=handle)
        client.refusal("guest-exec", path=5)


ENTRIES = [": guest-exec {", ": guest-file-open {", ": guest-exec refused"]


def test_in_the_foreground_syslog_gets_it(tmp_path: Path, syslog: socket.socket) -> None:
    with listening(tmp_path, launcher=launcher(tmp_path)) as agent:
        change_something(agent)
        for entry in ENTRIES:
            assert entry in syslog.recv(8192).decode()
        assert ENTRIES[-1] in agent.log
        assert ENTRIES[0] not in agent.log


def test_without_syslog_messages_go_to_stderr(tmp_path: Path) -> None:
    with listening(tmp_path, launcher=launcher(tmp_path)) as agent:
        change_something(agent)
        agent.wait_for_log(ENTRIES[-1])
        for entry, line in zip(ENTRIES, agent.log.splitlines()):
            assert entry in line


def test_nothing_arrives_while_the_filesystems_are_frozen(
    tmp_path: Path, syslog: socket.socket
) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    (tmp_path / "qga.state.isfrozen").write_text(f"[frozen]\nboot={boot}")
    with listening(tmp_path, launcher=launcher(tmp_path)) as agent, agent.connect() as client:
        client.refusal("guest-exec", path="/bin/true")
        syslog.setblocking(False)
        with pytest.raises(BlockingIOError):
            syslog.recv(8192)
        agent.process.kill()
