"""Keys land where sshd looks for them, with the owner and modes that it wants, and nowhere else.

That holds even if the user replaces the directory and the file by links meanwhile (CVE-2026-12080
of QEMU's agent, which worked as root there).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from .agent_socket import AgentError, AgentSocket
from .vm import Guest

pytestmark = pytest.mark.timeout(900)

FOLDER = "/home/person/.ssh"
FILE = f"{FOLDER}/authorized_keys"
A, B, C = "ssh-ed25519 AAAA a@host", "ssh-rsa BBBB", 'command="/bin/true",no-pty ssh-rsa CCCC c'
# A file and a folder of another user, who must not be robbed or served.
OTHERS = "/var/lib/other"


@pytest.fixture(autouse=True)
def no_keys(guest: Guest, person: str) -> Iterator[None]:
    script = (
        f"rm -rf {FOLDER} {OTHERS}; mkdir -p {OTHERS}/.ssh; "
        f"echo secret >{OTHERS}/.ssh/authorized_keys; chmod -R go= {OTHERS}"
    )
    guest.run(["/bin/sh", "-ec", script])
    yield
    guest.run(["rm", "-rf", FOLDER, OTHERS])


def add(agent: AgentSocket, *keys: str, reset: bool = False) -> None:
    agent.execute("guest-ssh-add-authorized-keys", username="person", keys=list(keys), reset=reset)


def remove(agent: AgentSocket, *keys: str) -> None:
    agent.execute("guest-ssh-remove-authorized-keys", username="person", keys=list(keys))


def told(agent: AgentSocket) -> list[str]:
    keys: list[str] = agent.execute("guest-ssh-get-authorized-keys", username="person")["keys"]
    return keys


def written(guest: Guest) -> list[str]:
    return guest.run(["cat", FILE]).stdout.splitlines()


def others(guest: Guest) -> str:
    return guest.run(["cat", f"{OTHERS}/.ssh/authorized_keys"]).stdout


def modes(guest: Guest) -> str:
    return guest.run(["stat", "--format=%U:%G %a %F", FOLDER, FILE]).stdout


def link(guest: Guest, target: str, path: str) -> None:
    guest.run(["/bin/sh", "-ec", 'su person -c "ln -s $1 $2"', "sh", target, path])


def refused(agent: AgentSocket, command: str, **arguments: object) -> str:
    with pytest.raises(AgentError) as caught:
        agent.execute(f"guest-ssh-{command}-authorized-keys", username="person", **arguments)
    return str(caught.value)


def test_add_get_remove_reset(guest: Guest, agent: AgentSocket) -> None:
    add(agent, A, B)
    add(agent, B, C)
    assert written(guest) == [A, B, C]
    assert told(agent) == [C, B, A]
    remove(agent, B, "ssh-rsa unknown")
    assert written(guest) == [A, C]
    add(agent, B, reset=True)
    assert written(guest) == [B]
    assert told(agent) == [B]


def test_no_keys_change_nothing(guest: Guest, agent: AgentSocket) -> None:
    add(agent)
    assert told(agent) == []
    guest.write_file(FILE, f"{A}\n\n{B}")
    add(agent)
    remove(agent)
    assert written(guest) == [A, "", B]


def test_many_keys(agent: AgentSocket) -> None:
    keys = [f"ssh-rsa {'A' * 700} number-{number}" for number in range(500)]
    add(agent, *keys)
    assert told(agent) == keys[::-1]


def test_directory_and_file_are_the_users_alone(guest: Guest, agent: AgentSocket) -> None:
    add(agent, A)
    assert modes(guest) == ("person:person 700 directory\nperson:person 600 regular file\n")
    guest.run(["/bin/sh", "-ec", f"chmod 644 {FILE}; chown root {FILE}"])
    remove(agent, A)
    assert "person:person 600 regular empty file\n" in modes(guest)


def test_comments_stay_and_are_no_keys(guest: Guest, agent: AgentSocket) -> None:
    add(agent, A)
    guest.write_file(FILE, f"# by hand\n\n  {A}  \n")
    add(agent, B)
    assert [line for line in written(guest) if line] == ["# by hand", f"  {A}  ", B]
    assert told(agent) == [B, A]


def test_directory_that_leads_to_anothers_is_refused(guest: Guest, agent: AgentSocket) -> None:
    link(guest, f"{OTHERS}/.ssh", FOLDER)
    for command, arguments in {
        "add": {"keys": [A]},
        "get": {},
        "remove": {"keys": ["secret"]},
    }.items():
        assert "Permission denied" in refused(agent, command, **arguments)
    assert others(guest) == "secret\n"


def test_link_to_anothers_file_is_not_followed(guest: Guest, agent: AgentSocket) -> None:
    guest.run(["su", "person", "-c", f"mkdir -m 700 {FOLDER}"])
    link(guest, f"{OTHERS}/.ssh/authorized_keys", FILE)
    assert "Permission denied" in refused(agent, "get")
    assert "Permission denied" in refused(agent, "add", keys=[A])
    assert others(guest) == "secret\n"
    add(agent, A, reset=True)
    assert written(guest) == [A]
    assert others(guest) == "secret\n"


RACE = f"""
import os
os.chdir("/home/person")
for name, target in (("to-directory", "{OTHERS}/.ssh"), ("to-etc", "/etc")):
    os.symlink(target, name)
while True:
    for name in ("to-directory", "to-etc"):
        for held, path in (("{FOLDER}", "mine"), (name, "{FOLDER}"), ("{FOLDER}", name),
                           ("mine", "{FOLDER}")):
            try:
                os.rename(held, path)
            except OSError:
                pass
    try:
        os.symlink("{OTHERS}/.ssh/authorized_keys", "link")
        os.rename("link", "{FILE}")
    except OSError:
        pass
    for name, target in (("to-directory", "{OTHERS}/.ssh"), ("to-etc", "/etc")):
        if not os.path.lexists(name):
            os.symlink(target, name)
"""
"""The user's script, which makes ~/.ssh a directory and a link to one of root's in turn."""

WATCHED = f"{OTHERS} {OTHERS}/.ssh {OTHERS}/.ssh/authorized_keys"


def state_of_others(guest: Guest) -> str:
    """Owners, modes, contents and names of files that are not the user's."""
    script = (
        f"stat --format='%n %i %U %G %a %s %Z' {WATCHED}; cat {OTHERS}/.ssh/authorized_keys; "
        f"ls -A {OTHERS}/.ssh; ls -A /etc | grep authorized_keys || true"
    )
    return guest.run(["/bin/sh", "-ec", script]).stdout


def test_links_that_come_and_go_lead_to_nobody_elses_files(
    guest: Guest, agent: AgentSocket
) -> None:
    before = state_of_others(guest)
    guest.run(["su", "person", "-c", f"mkdir -p -m 700 {FOLDER}"])
    start = ["systemd-run", "--unit=key-race", "--uid=person", "/usr/bin/python3", "-c", RACE]
    guest.run(start)
    outcomes: Counter[str] = Counter()
    try:
        for number in range(20):
            for command, arguments in (
                ("add", {"keys": [f"ssh-rsa {number}"]}),
                ("add", {"keys": [f"ssh-rsa {number}"], "reset": True}),
                ("remove", {"keys": ["secret", f"ssh-rsa {number}"]}),
                ("get", {}),
            ):
                name = f"guest-ssh-{command}-authorized-keys"
                try:
                    reply = agent.execute(name, username="person", **arguments)
                    outcomes["done"] += 1
                    assert "secret" not in str(reply)
                except AgentError as error:
                    outcomes[str(error).rpartition(": ")[2]] += 1
    finally:
        guest.run(["systemctl", "stop", "key-race"], check=False)
        guest.run(["/bin/sh", "-c", "rm -rf /home/person/mine /home/person/to-*"])
    assert state_of_others(guest) == before
    assert outcomes["done"]
    assert outcomes["Permission denied"]  # so links were there at the wrong moment
