"""The administrator's rules keep the host from changing the guest, and attempts are logged."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from . import service
from .agent_socket import AgentError, AgentSocket
from .vm import Guest

pytestmark = pytest.mark.timeout(900)

FOLDER = "/run/policy"
RULES = f"""[general]
profile=unrestricted
[files]
read={FOLDER}/open/; /etc/os-release; /usr/lib/os-release
write={FOLDER}/open/
[exec]
allow=/usr/bin/id; /usr/bin/touch {FOLDER}/open/*
user=nobody
[accounts]
allow=person
"""
SETUP = f"""
mkdir -p {FOLDER}/open {FOLDER}/closed
echo secret >{FOLDER}/closed/file
ln -sfn ../closed {FOLDER}/open/way-out
ln -sf ../closed/file {FOLDER}/open/link
chmod 777 {FOLDER}/open
"""


@pytest.fixture(scope="module")
def ruled(guest: Guest, person: str) -> Iterator[str]:
    """The name of the unit of an agent with rules, on the agent's port."""
    guest.run(["/bin/sh", "-ec", SETUP])
    guest.write_file(f"{FOLDER}/qemu-ga.conf", RULES)
    with service.stopped(guest), service.by_hand(guest, "-c", f"{FOLDER}/qemu-ga.conf") as unit:
        yield unit
    guest.run(["rm", "-rf", FOLDER])


@pytest.fixture
def agent(guest: Guest, ruled: str) -> Iterator[AgentSocket]:
    with guest.connect() as agent:
        yield agent


def refused(agent: AgentSocket, command: str, **arguments: object) -> bool:
    with pytest.raises(AgentError) as caught:
        agent.execute(command, **arguments)
    assert caught.value.error_class == "GenericError"
    assert str(caught.value).startswith(f"Command {command} has been refused: ")
    return True


def content(guest: Guest, path: str) -> str:
    return guest.run(["cat", path]).stdout


def password_of(guest: Guest, user: str) -> str:
    return guest.run(["getent", "shadow", user]).stdout


def output_of(guest: Guest, agent: AgentSocket, *argv: str) -> str:
    pid = agent.execute("guest-exec", path=argv[0], arg=argv[1:], **{"capture-output": True})["pid"]
    return guest.wait_exec(agent, argv, pid).stdout


def test_files_within_the_rules_are_read_and_written(guest: Guest, agent: AgentSocket) -> None:
    handle = agent.execute("guest-file-open", path=f"{FOLDER}/open/new", mode="w")
    data = base64.b64encode(b"written").decode()
    agent.execute("guest-file-write", handle=handle, **{"buf-b64": data})
    agent.execute("guest-file-close", handle=handle)
    assert content(guest, f"{FOLDER}/open/new") == "written"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/shadow",
        f"{FOLDER}/open/../closed/file",
        f"{FOLDER}/open/link",
        f"{FOLDER}/open/way-out/file",
    ],
)
def test_no_path_leads_out_of_the_directories(guest: Guest, agent: AgentSocket, path: str) -> None:
    for mode in ("r", "w", "a"):
        assert refused(agent, "guest-file-open", path=path, mode=mode)
    assert content(guest, f"{FOLDER}/closed/file") == "secret\n"
    assert password_of(guest, "root")


def test_programs_run_as_the_user_of_the_rules(guest: Guest, agent: AgentSocket) -> None:
    assert output_of(guest, agent, "/usr/bin/id", "-un") == "nobody\n"
    output_of(guest, agent, "/usr/bin/touch", f"{FOLDER}/open/touched")
    shown = guest.run(["stat", "--format=%U", f"{FOLDER}/open/touched"])
    assert shown.stdout == "nobody\n"


def test_other_programs_and_arguments_do_not_run(guest: Guest, agent: AgentSocket) -> None:
    assert refused(agent, "guest-exec", path="/bin/sh", arg=["-c", f"touch {FOLDER}/open/shell"])
    assert refused(agent, "guest-exec", path="/usr/bin/touch", arg=[f"{FOLDER}/elsewhere"])
    assert guest.run(["test", "-e", f"{FOLDER}/open/shell"], check=False).status != 0
    assert guest.run(["test", "-e", f"{FOLDER}/elsewhere"], check=False).status != 0


def test_other_accounts_keep_password_and_keys(guest: Guest, agent: AgentSocket) -> None:
    before = password_of(guest, "root"), password_of(guest, "person")
    word = base64.b64encode(b"guessed").decode()
    change = {"password": word, "crypted": False}
    assert refused(agent, "guest-set-user-password", username="root", **change)
    assert refused(agent, "guest-ssh-add-authorized-keys", username="root", keys=["ssh-rsa AAAA"])
    assert guest.run(["test", "-e", "/root/.ssh/authorized_keys"], check=False).status != 0
    agent.execute("guest-set-user-password", username="person", **change)
    assert password_of(guest, "root") == before[0]
    assert password_of(guest, "person") != before[1]


def test_each_refusal_is_a_warning_in_the_journal(
    guest: Guest, agent: AgentSocket, ruled: str
) -> None:
    def told() -> list[str]:
        guest.run(["journalctl", "--sync"])
        argv = ["journalctl", "--quiet", "--output=json", f"--unit={ruled}", "PRIORITY=4"]
        entries = [json.loads(line) for line in guest.run(argv).stdout.splitlines()]
        about = [entry for entry in entries if f"{FOLDER}/closed/told" in entry["MESSAGE"]]
        return [entry["QGA_COMMAND"] for entry in about]

    before = told()
    assert refused(agent, "guest-file-open", path=f"{FOLDER}/closed/told", mode="r")
    assert told() == [*before, "guest-file-open"]


def test_it_tells_before_what_it_would_say(guest: Guest, ruled: str) -> None:
    argv = [service.PROGRAM, "-c", f"{FOLDER}/qemu-ga.conf", "--explain-policy"]
    asked = guest.run([*argv, "guest-file-open", "path=/etc/shadow"], check=False)
    assert asked.status == 1
    assert asked.stdout.startswith("refused: '/etc/shadow' is not in [files] read of ")
    assert "line 4: read=" in asked.stdout
