"""Kernels, system call filters and Pythons that lack features that the agent prefers.

System calls that are newer than Linux 4.18, or that a container may forbid, are made to fail in a
real agent process. Everything must work as before.
"""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hardened import audit_commands

from tests.guest.comparing import flat
from tests.integration import old_kernel, old_python
from tests.integration.agent_process import (
    AgentProcess,
    Client,
    listening,
    refused_start,
    wait_for,
)
from tests.integration.guest_program import final_status, output, run, start_program

CONTENT = os.urandom(200_000)

# Attributes of modules that there are only where the C library or the kernel's headers have them.
NAMES = (
    *("pidfd_open", "pidfd_send_signal", "P_PIDFD", "memfd_create", "MFD_CLOEXEC", "RWF_NOWAIT"),
    *("preadv", "pwritev", "copy_file_range", "splice", "sendfile", "eventfd", "getrandom"),
    *("O_TMPFILE", "posix_spawn", "posix_fadvise", "unshare", "setns", "login_tty"),
)


def without_calls(**errors: str) -> list[str]:
    rules = [f"{call}={error}" for call, error in errors.items()]
    return [sys.executable, old_kernel.__file__, *rules, "--"]


def without_names(*names: str) -> list[str]:
    return [sys.executable, old_python.__file__, *names, "--"]


ERRORS = ("ENOSYS", "EPERM", "EACCES", "EINVAL", "EOPNOTSUPP")

LAUNCHERS = {
    "linux-4.18": without_calls(new="ENOSYS"),
    "linux-5.10": without_calls(preadv2="0"),  # as for what is not in memory
    **{error: without_calls(**dict.fromkeys(old_kernel.CALLS, error)) for error in ERRORS},
    "python": without_names(*NAMES),
}

# Stands in for chpasswd(8): keeps its input, and says how it was called.
CHPASSWD = """\
#!/bin/sh
cat >"${0%/*}/input"
echo "as $*"
exit 3
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    (folder / "chpasswd").write_text(CHPASSWD)
    (folder / "chpasswd").chmod(0o755)
    return folder


@pytest.fixture(scope="module", params=LAUNCHERS)
def agent(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, programs: Path
) -> Iterator[AgentProcess]:
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    launcher = LAUNCHERS[request.param]
    folder = tmp_path_factory.mktemp("agent")
    with listening(folder, launcher=launcher, env=environment) as agent:
        yield agent
    assert "fault" not in agent.log


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """An agent for which nothing fails."""
    with listening(tmp_path_factory.mktemp("usual")) as agent, agent.connect() as client:
        yield client


def test_a_file_is_read_to_its_end(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    handle = client.call("guest-file-open", path=str(tmp_path / "file"))
    data, eof = b"", False
    while not eof:
        read = client.call("guest-file-read", handle=handle)
        data += base64.b64decode(read["buf-b64"])
        eof = read["eof"]
        assert read["count"] or eof
    assert data == CONTENT
    client.call("guest-file-close", handle=handle)


def test_a_file_is_written(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "new"
    handle = client.call("guest-file-open", path=str(path), mode="w+")
    text = base64.b64encode(CONTENT).decode()
    assert client.call("guest-file-write", handle=handle, buf_b64=text)["count"] == len(CONTENT)
    client.call("guest-file-flush", handle=handle)
    assert client.call("guest-file-seek", handle=handle, offset=-1, whence="end")
    client.call("guest-file-close", handle=handle)
    assert path.read_bytes() == CONTENT


def test_the_checksum_of_a_file(client: Client, usual: Client, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    summed = client.call("qga-file-checksum", path=str(path))
    assert summed == usual.call("qga-file-checksum", path=str(path))


def test_programs(client: Client) -> None:
    assert output(client, "cat", input_data="aGk=") == "hi"
    assert run(client, "/bin/sh", "-c", "exit 7")["exitcode"] == 7
    assert run(client, "/bin/sh", "-c", "kill -9 $$")["signal"] == 9
    refusal = client.refusal("guest-exec", path="/nowhere/to/be/found")
    assert refusal.endswith("(No such file or directory)")


def test_the_end_of_a_program_is_seen_at_once_and_its_process_is_gone(
    agent: AgentProcess, client: Client
) -> None:
    before = agent.descriptors("pipe:", "anon_inode:[pidfd]")
    pids = [start_program(client, "sleep", "0.1") for _ in range(20)]
    assert all(final_status(client, pid)["exitcode"] == 0 for pid in pids)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    wait_for(lambda: agent.descriptors("pipe:", "anon_inode:[pidfd]") == before, "descriptors back")


def test_a_program_while_it_runs(client: Client) -> None:
    for terminal in (False, True):
        pid = client.call("qga-exec", path="/bin/sh", arg=["-c", "read x; echo $x"], tty=terminal)
        pid = pid["pid"]
        client.call("qga-exec-write", pid=pid, buf_b64=base64.b64encode(b"hi\n").decode())

        def end(pid: int = pid) -> Any:
            seen = client.call("qga-exec-read", pid=pid)
            return seen if seen["exited"] else None

        seen = wait_for(end, "the end of the program")
        assert seen["exitcode"] == 0
        assert b"hi" in base64.b64decode(seen["out-data"])


def test_a_program_that_the_agent_needs(client: Client, programs: Path) -> None:
    refusal = client.refusal(
        "guest-set-user-password", username="nobody", password="c2VjcmV0", crypted=True
    )
    assert refusal == "child process has failed to set user password: as -e\n"
    assert (programs / "input").read_bytes() == b"nobody:secret\n"


@pytest.mark.parametrize("command", audit_commands())
def test_what_the_host_asks_for(client: Client, usual: Client, command: str) -> None:
    """The members of the reply, not their values, which change."""
    more = {"id": 1} if command.startswith("guest-sync") else {}
    if command == "guest-sync-delimited":
        client.send(b'{"execute":"guest-sync-delimited","arguments":{"id":1}}')
        assert client.line() == b'\xff{"return": 1}\n'
        return
    replies: list[Any] = []
    for asked in (usual, client):
        try:
            replies.append(flat(asked.call(command, **more)).keys())
        except Exception as error:  # the same refusal by both
            replies.append(str(error))
    if command != "qga-get-metrics":  # has entries of what happens to run
        assert replies[1] == replies[0]


@pytest.mark.parametrize("error", [*ERRORS, "E2BIG", "EAGAIN"])
def test_rules_about_files(tmp_path: Path, error: str) -> None:
    allowed, forbidden = tmp_path / "allowed", tmp_path / "forbidden"
    for folder in (allowed, forbidden):
        folder.mkdir()
        (folder / "file").write_text("text")
    (allowed / "link").symlink_to(forbidden / "file")
    config = f"[files]\nread={allowed}/\n"
    how = {"launcher": without_calls(openat2=error), "config": config}
    with listening(tmp_path, **how) as agent, agent.connect() as client:
        handle = client.call("guest-file-open", path=f"{allowed}/file")
        assert client.call("guest-file-read", handle=handle)["count"] == len("text")
        for path in (forbidden / "file", allowed / "link", f"/proc/{os.getpid()}/root{forbidden}"):
            assert "has been refused" in client.refusal("guest-file-open", path=str(path))


def test_a_python_without_vsock(tmp_path: Path) -> None:
    launcher = without_names("AF_VSOCK")
    log = refused_start(tmp_path, method="vsock-listen", path="-1:1234", launcher=launcher)
    assert "error opening channel '-1:1234': this Python was built without vsock" in log
