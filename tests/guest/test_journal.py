"""Messages have a priority in the journal, and a journal that hangs does not block the agent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import service
from .agent_socket import AgentError, AgentSocket
from .vm import Guest

pytestmark = pytest.mark.timeout(900)

JOURNALD = "systemd-journald.service"
# Sends until the queue is full, and not only what one sender may have in it.
FILL = """
import socket

def fill():
    journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    journal.setblocking(False)
    journal.connect("/run/systemd/journal/socket")
    sent = 0
    try:
        while True:
            journal.send(b"MESSAGE=filler\\nSYSLOG_IDENTIFIER=filler\\n")
            sent += 1
    except BlockingIOError:
        return sent

while fill():
    pass
"""


@pytest.fixture
def full_journal(guest: Guest) -> Iterator[None]:
    """The journal's daemon stopped in its tracks, and its queue full."""
    guest.run(["systemctl", "kill", "--signal=STOP", JOURNALD])
    try:
        guest.python(FILL)
        yield
    finally:
        guest.run(["systemctl", "kill", "--signal=CONT", JOURNALD])


@pytest.mark.parametrize(
    ("options", "text"),
    [("--nonsense", "unrecognized option"), ("--method=none", "unsupported channel method")],
)
def test_a_start_that_fails_is_an_error_in_the_journal(
    guest: Guest, options: str, text: str
) -> None:
    unit = f"start{options.replace('=', '-')}.service"
    start = ["systemd-run", "--quiet", "--wait", "--collect", f"--unit={unit}"]
    assert guest.run([*start, service.PROGRAM, options], check=False).status != 0
    guest.run(["journalctl", "--sync"])
    told = guest.run(["journalctl", "--quiet", "--output=cat", "--priority=err", f"--unit={unit}"])
    assert text in told.stdout


def logged(guest: Guest, what: str) -> bool:
    return what in guest.run(["journalctl", "--quiet", "--identifier=qemu-ga"]).stdout


def test_commands_are_answered_while_they_cannot_be_logged(
    guest: Guest, agent: AgentSocket, full_journal: None
) -> None:
    for number in range(3):
        pid = agent.execute("guest-exec", path="/bin/true", arg=[f"unheard-{number}"])["pid"]
        assert pid > 0
    assert agent.execute("guest-ping") == {}


def test_a_failure_that_quotes_megabytes_is_logged(guest: Guest, agent: AgentSocket) -> None:
    """The journal drops an entry of megabytes."""
    with pytest.raises(AgentError):
        agent.execute("guest-file-open", path="/nowhere/" + "x" * 3_000_000)
    guest.run(["journalctl", "--sync"])
    assert logged(guest, 'guest-file-open {"path":"/nowhere/xxx')


def test_commands_are_logged_again_after_the_journal_recovers(
    guest: Guest, agent: AgentSocket
) -> None:
    guest.run(["journalctl", "--sync"])
    agent.execute("guest-exec", path="/bin/true", arg=["heard"])
    guest.run(["journalctl", "--sync"])
    assert logged(guest, '["heard"]')
