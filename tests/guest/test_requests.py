"""The agent serves the host over libvirt's port: its replies, and their effects in the guest.

Effects are observed through QEMU's agent in the same guest, never through the agent under test.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re

import pytest

from . import service
from .agent_socket import AgentError, AgentSocket, encode
from .vm import Guest, Result

# The first test may have to build the image.
pytestmark = pytest.mark.timeout(900)

MEGABYTE = 1 << 20
COMMANDS = {
    "guest-exec",
    "guest-exec-status",
    "guest-file-close",
    "guest-file-flush",
    "guest-file-open",
    "guest-file-read",
    "guest-file-seek",
    "guest-file-write",
    "guest-get-host-name",
    "guest-get-osinfo",
    "guest-get-time",
    "guest-get-timezone",
    "guest-info",
    "guest-ping",
    "guest-sync",
    "guest-sync-delimited",
}


def execute_program(guest: Guest, agent: AgentSocket, *argv: str) -> Result:
    """Run a program in the guest through the agent under test."""
    request = {"path": argv[0], "arg": list(argv[1:]), "capture-output": True}
    return guest.wait_exec(agent, argv, agent.execute("guest-exec", **request)["pid"])


def sha256_in_guest(guest: Guest, path: str) -> str:
    return guest.run(["sha256sum", path]).stdout.split()[0]


def test_the_release_is_that_of_the_program_and_python_that_of_the_guest(
    guest: Guest, agent: AgentSocket
) -> None:
    told = agent.execute("qga-get-version")
    assert told["version"] in guest.run([service.PROGRAM, "--version"]).stdout
    assert f"Python {told['python']}" in guest.run(["python3", "--version"]).stdout


def test_sync(agent: AgentSocket) -> None:
    assert agent.execute("guest-sync", id=123456789) == 123456789


def test_sync_delimited_puts_the_delimiter_before_its_reply(agent: AgentSocket) -> None:
    agent.send(encode("guest-sync-delimited", {"id": 7}))
    assert agent.read_line() == b'\xff{"return": 7}'


def test_ping(agent: AgentSocket) -> None:
    assert agent.execute("guest-ping") == {}


def test_request_that_comes_byte_by_byte_without_a_newline(agent: AgentSocket) -> None:
    for byte in b'{"execute": "guest-ping", "id": [1]}':
        agent.send(bytes([byte]))
    assert json.loads(agent.read_line()) == {"return": {}, "id": [1]}


def test_requests_in_one_write_are_answered_in_order(agent: AgentSocket) -> None:
    agent.send(b"".join(encode("guest-sync", {"id": number}) for number in range(50)))
    replies = [json.loads(agent.read_line()) for _ in range(50)]
    assert replies == [{"return": number} for number in range(50)]


def test_info(agent: AgentSocket) -> None:
    info = agent.execute("guest-info")
    assert info["version"] == "11.1.3"
    commands = {command["name"]: command for command in info["supported_commands"]}
    assert commands.keys() >= COMMANDS
    for command in commands.values():
        assert command.keys() == {"name", "enabled", "success-response"}
    assert commands["guest-ping"] == {
        "name": "guest-ping",
        "enabled": True,
        "success-response": True,
    }


def test_exec_runs_in_the_guest(guest: Guest, agent: AgentSocket) -> None:
    result = execute_program(guest, agent, "/bin/sh", "-c", "echo out; echo err >&2; uname -n")
    assert result == Result(0, "out\nguest\n", "err\n")


def test_exec_reports_the_exit_code(guest: Guest, agent: AgentSocket) -> None:
    assert execute_program(guest, agent, "/bin/sh", "-c", "exit 3").status == 3


def test_exec_reports_the_signal(guest: Guest, agent: AgentSocket) -> None:
    assert execute_program(guest, agent, "/bin/sh", "-c", "kill -TERM $$").status == -15


def test_file_of_5_mb_to_the_guest(guest: Guest, agent: AgentSocket) -> None:
    data = random.Random(5).randbytes(5_000_000)
    path = "/var/tmp/from-host"
    handle = agent.execute("guest-file-open", path=path, mode="w")
    for start in range(0, len(data), MEGABYTE):
        chunk = data[start : start + MEGABYTE]
        written = agent.execute(
            "guest-file-write", handle=handle, buf_b64=base64.b64encode(chunk).decode()
        )
        assert written["count"] == len(chunk)
    agent.execute("guest-file-close", handle=handle)
    assert sha256_in_guest(guest, path) == hashlib.sha256(data).hexdigest()
    guest.run(["rm", path])


def test_file_of_5_mb_from_the_guest(guest: Guest, agent: AgentSocket) -> None:
    path = "/var/tmp/from-guest"
    guest.run(["/bin/sh", "-c", f"head -c 5000000 /dev/urandom >{path}"])
    handle = agent.execute("guest-file-open", path=path)
    data = bytearray()
    at_end = False
    while not at_end:
        piece = agent.execute("guest-file-read", handle=handle, count=MEGABYTE)
        data += base64.b64decode(piece["buf-b64"])
        at_end = piece["eof"]
    agent.execute("guest-file-close", handle=handle)
    assert len(data) == 5_000_000
    assert hashlib.sha256(data).hexdigest() == sha256_in_guest(guest, path)
    guest.run(["rm", path])


def test_reply_larger_than_the_ports_queue(guest: Guest, agent: AgentSocket) -> None:
    """The port accepts some 4 MB before it is full; the rest has to wait."""
    path = "/var/tmp/zeros"
    guest.run(["truncate", "--size=12M", path])
    handle = agent.execute("guest-file-open", path=path)
    reply = agent.execute("guest-file-read", handle=handle, count=12 * MEGABYTE)
    agent.execute("guest-file-close", handle=handle)
    assert reply["count"] == 12 * MEGABYTE
    assert base64.b64decode(reply["buf-b64"]) == bytes(12 * MEGABYTE)
    guest.run(["rm", path])


def test_faults_of_every_kind_are_answered_and_forgotten(agent: AgentSocket) -> None:
    with pytest.raises(AgentError, match="The command guest-nothing has not been found") as caught:
        agent.execute("guest-nothing")
    assert caught.value.error_class == "CommandNotFound"
    with pytest.raises(AgentError, match=re.escape("Parameter 'path' is missing")):
        agent.execute("guest-file-open")
    agent.send(b'{"execute": %s}\n')
    for _ in range(2):
        assert b"JSON parse error" in agent.read_line()
    assert agent.execute("guest-ping") == {}


@pytest.mark.parametrize(
    "command", ["guest-get-osinfo", "guest-get-timezone", "guest-get-host-name"]
)
def test_same_reply_as_the_original(guest: Guest, agent: AgentSocket, command: str) -> None:
    assert guest.original is not None
    assert agent.execute(command) == guest.original.execute(command)


def test_time_is_the_guests(guest: Guest, agent: AgentSocket) -> None:
    before = int(guest.run(["date", "+%s%N"]).stdout)
    told = agent.execute("guest-get-time")
    after = int(guest.run(["date", "+%s%N"]).stdout)
    assert before <= told + 1000 <= after + 1000
