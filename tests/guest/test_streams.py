"""Programs of the guest whose input and output the host streams."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from .agent_socket import AgentError, AgentSocket
from .data_port import PORT, Link, state_of_port, wait_until_free
from .service import main_pid, open_files, wait_for
from .vm import Guest

# The first test may have to build the image.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def link(guest: Guest) -> Iterator[Link]:
    with Link(guest) as connected:
        yield connected


def start(agent: AgentSocket, script: str, **how: Any) -> int:
    """Have the agent run a shell script, by default on the data port; its process id."""
    how = {"port": PORT.name, **how}
    given = {key: value for key, value in how.items() if value is not None}
    started = agent.execute("qga-exec", path="/bin/sh", arg=["-c", script], **given)
    return int(started["pid"])


def ended(agent: AgentSocket, pid: int) -> dict[str, Any]:
    """The last reply of qga-exec-read about a program."""
    return wait_for(
        lambda: (seen := agent.execute("qga-exec-read", pid=pid))["exited"] and seen,
        f"the end of process {pid}",
    )


def runs(guest: Guest, word: str) -> bool:
    """Whether a process of the guest has this word in its command line."""
    shown = guest.run(["/bin/sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null || true"]).stdout
    return word in shown.split("\0")


def descriptors(guest: Guest) -> int:
    """How many the agent has open."""
    return len(open_files(guest, main_pid(guest)))


def test_output_is_seen_while_the_program_runs(agent: AgentSocket, link: Link) -> None:
    pid = start(agent, "echo ready; read answer; echo got $answer; echo fault >&2; exit 7")
    assert link.take(6) == b"ready\n"
    assert agent.execute("qga-exec-read", pid=pid)["exited"] is False
    link.send(b"an answer\n")
    assert link.take(14) == b"got an answer\n"
    over = ended(agent, pid)
    assert (over["exitcode"], over["out-total"]) == (7, 20)
    assert base64.b64decode(over["err-data"]) == b"fault\n"
    assert not state_of_port(agent)["busy"]


def test_output_without_a_port_is_seen_while_the_program_runs(agent: AgentSocket) -> None:
    pid = start(agent, "echo ready; read answer; echo got $answer", port=None)
    seen = wait_for(
        lambda: (seen := agent.execute("qga-exec-read", pid=pid)).get("out-data") and seen, "output"
    )
    assert (base64.b64decode(seen["out-data"]), seen["exited"]) == (b"ready\n", False)
    answer = base64.b64encode(b"yes\n").decode()
    assert agent.execute("qga-exec-write", pid=pid, buf_b64=answer) == {"count": 4}
    assert ended(agent, pid)["exitcode"] == 0
    rest = agent.execute("qga-exec-read", pid=pid, offset=6)
    assert (base64.b64decode(rest["out-data"]), rest["out-offset"]) == (b"got yes\n", 6)


def test_much_through_a_program(guest: Guest, agent: AgentSocket, link: Link) -> None:
    content = bytes(range(256)) * 4096 * 8  # more than all buffers on the way
    pid = start(agent, "tee /run/tee | sha256sum >/run/sum; cat /run/tee")
    link.send(content)
    agent.execute("qga-exec-write", pid=pid, eof=True, after=len(content))
    assert link.take(len(content)) == content
    assert ended(agent, pid)["exitcode"] == 0
    wanted = hashlib.sha256(content).hexdigest()
    assert guest.run(["cat", "/run/sum"]).stdout.split()[0] == wanted
    guest.run(["rm", "/run/tee"])


def test_a_host_that_does_not_read_makes_the_program_wait(agent: AgentSocket, link: Link) -> None:
    pid = start(agent, "head -c 20000000 /dev/zero; echo done >&2")
    wait_for(lambda: agent.execute("qga-exec-read", pid=pid)["out-total"] > 10**6, "much to read")
    assert not agent.execute("qga-exec-read", pid=pid)["exited"]
    assert link.take(20_000_000) == bytes(20_000_000)
    over = ended(agent, pid)
    assert over["out-total"] == 20_000_000
    assert base64.b64decode(over["err-data"]) == b"done\n"


def test_a_terminal_and_its_size(agent: AgentSocket, link: Link) -> None:
    script = "stty -echo; tty; echo $TERM; stty size; trap 'stty size; exit 0' WINCH; "
    script += "echo ready; while read line; do :; done"
    pid = start(agent, script, tty=True, rows=30, columns=100, term="xterm-256color")
    lines = link.take_until(b"ready\r\n").decode().split("\r\n")
    assert lines[0].startswith("/dev/pts/")
    assert lines[1:] == ["xterm-256color", "30 100", "ready", ""]
    agent.execute("qga-exec-resize", pid=pid, rows=31, columns=101)
    link.send(b"\n")  # sh carries out the trap when it has read
    assert link.take(8) == b"31 101\r\n"
    assert ended(agent, pid)["exitcode"] == 0


def test_keys_of_a_terminal_are_signals(agent: AgentSocket, link: Link) -> None:
    # A shell loses ^C that comes just before it executes the next program; its answer proves that
    # this one runs.
    pid = start(agent, "exec tr a-z A-Z", tty=True)
    link.send(b"ready\n")
    link.take_until(b"READY\r\n")
    link.send(b"\x03")
    assert ended(agent, pid)["signal"] == 2


def test_signals_reach_what_a_program_has_started(
    guest: Guest, agent: AgentSocket, link: Link
) -> None:
    pid = start(agent, "sleep 1001 & echo ready; wait")
    link.take_until(b"ready\n")
    agent.execute("qga-exec-signal", pid=pid, signal="KILL")
    assert ended(agent, pid)["signal"] == 9
    wait_for(lambda: not runs(guest, "1001"), "the end of what it has started")
    assert not state_of_port(agent)["busy"]
    with pytest.raises(AgentError, match="has ended already"):
        agent.execute("qga-exec-signal", pid=pid, signal="TERM")


@pytest.mark.parametrize("tty", [False, True])
def test_a_host_that_leaves_takes_its_program_with_it(
    guest: Guest, agent: AgentSocket, tty: bool
) -> None:
    before = descriptors(guest)
    with Link(guest) as link:
        pid = start(agent, "trap '' HUP; sleep 1002 & echo ready; sleep 1003; sleep 1004", tty=tty)
        link.take_until(b"\n")
    wait_until_free(agent)
    over = ended(agent, pid)
    assert over["signal"] == 9
    wait_for(lambda: not any(runs(guest, f"100{n}") for n in (2, 3, 4)), "the processes' end")
    wait_for(lambda: descriptors(guest) <= before, "the descriptors' end")


def test_a_host_that_leaves_output_unread(guest: Guest, agent: AgentSocket) -> None:
    with Link(guest) as link:
        pid = start(agent, "yes")
        link.take(1)
    assert ended(agent, pid)["signal"] in (1, 13)
    wait_until_free(agent)


def test_a_port_that_is_unplugged(guest: Guest, agent: AgentSocket) -> None:
    with Link(guest) as link:
        pid = start(agent, "echo ready; sleep 1005")
        link.take_until(b"ready\n")
        guest.unplug_port(PORT)
        try:
            assert ended(agent, pid)["signal"] == 1
        finally:
            guest.plug_port(PORT)
            wait_for(lambda: is_there(agent), "the guest to find its port again")


def is_there(agent: AgentSocket) -> bool:
    return PORT.name in {port["name"] for port in agent.execute("qga-get-ports")}


def test_one_program_after_the_other(guest: Guest, agent: AgentSocket) -> None:
    """A host that sends a request at once gets the reply, and nothing is left for the next one."""
    for number in range(20):
        with Link(guest) as link:
            pid = start(agent, "cat")
            text = f"number {number}\n".encode()
            link.send(text)
            assert link.take(len(text)) == text
            agent.execute("qga-exec-write", pid=pid, eof=True, after=len(text))
            assert ended(agent, pid)["exitcode"] == 0
