"""Memory is kept from one large request to the next, and given back when there is no other."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from qga.memory import SILENCE
from tests.integration.agent_process import AgentProcess, Client, listening, request, wait_for

SIZE = 8 * 1024 * 1024
PAGES = SIZE // 4096
TIMES = 8


def page_faults(agent: AgentProcess) -> int:
    """Those for which no file was read (proc_pid_stat(5))."""
    return int(Path(f"/proc/{agent.pid}/stat").read_text().rpartition(")")[2].split()[7])


def switches(agent: AgentProcess) -> int:
    return sum(
        int(line.split()[1])
        for status in Path(f"/proc/{agent.pid}/task").glob("*/status")
        for line in status.read_text().splitlines()
        if "ctxt_switches" in line
    )


def large_request(client: Client, command: str) -> bytes:
    if command == "guest-file-read":
        handle = client.call("guest-file-open", path="/dev/zero")
        return request(command, handle=handle, count=SIZE)
    handle = client.call("guest-file-open", path="/dev/null", mode="w")
    return request(command, handle=handle, buf_b64="A" * (SIZE // 3 * 4))


def repeat(client: Client, line: bytes) -> None:
    """As fast as a client can that does not look into the replies."""
    for _ in range(TIMES):
        client.send(line)
        while not client.socket.recv(1 << 20).endswith(b"\n"):
            pass


@pytest.mark.parametrize("command", ["guest-file-read", "guest-file-write"])
def test_large_requests_in_turn_use_the_same_memory(command: str, tmp_path: Path) -> None:
    with listening(tmp_path) as agent, agent.connect() as client:
        idle = agent.memory("VmRSS")
        line = large_request(client, command)
        repeat(client, line)
        before = page_faults(agent)
        repeat(client, line)
        assert page_faults(agent) - before < TIMES * PAGES / 2
        wait_for(lambda: agent.memory("VmRSS") - idle < 4_000_000, "the memory is given back")
        time.sleep(3 * SILENCE)
        before = switches(agent)
        time.sleep(5 * SILENCE)
        assert switches(agent) == before
