"""The collection for Ansible works for users other than root, with each agent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.qga.guest.plugins.plugin_utils import as_user, escalation
from qga.client import CopyError, GuestAgent
from tests.integration.client_agents import AGENTS, running

USER = "games"
SIZE = 2 * as_user.PIECE + 1


@pytest.fixture(scope="module", params=AGENTS)
def agent(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GuestAgent]:
    folder = tmp_path_factory.mktemp("agent")
    with running(request.param, folder) as address, GuestAgent(address, 30) as agent:
        yield agent


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where any user may create files."""
    with TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        yield Path(name)


@pytest.mark.parametrize("size", [0, 1, as_user.PIECE, SIZE])
def test_there_and_back(agent: GuestAgent, folder: Path, size: int) -> None:
    content = os.urandom(size)
    (folder / "source").write_bytes(content)
    as_user.put(agent, USER, str(folder / "source"), str(folder / "there"))
    assert (folder / "there").read_bytes() == content
    assert (folder / "there").owner() == USER
    assert (folder / "there").stat().st_mode & 0o777 == 0o600
    as_user.fetch(agent, USER, str(folder / "there"), str(folder / "back"))
    assert (folder / "back").read_bytes() == content


def test_relative_paths_begin_at_home(agent: GuestAgent, folder: Path) -> None:
    """Which is /usr/games, as for ssh."""
    as_user.put(agent, USER, __file__, f"../..{folder}/there")
    as_user.fetch(agent, USER, f"../..{folder}/there", str(folder / "back"))
    assert (folder / "back").read_bytes() == Path(__file__).read_bytes()


def test_the_user_gets_no_rights_of_root(agent: GuestAgent, folder: Path) -> None:
    secret = folder / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)
    with pytest.raises(CopyError, match="secret"):
        as_user.fetch(agent, USER, str(secret), str(folder / "back"))
    with pytest.raises(CopyError, match="secret"):
        as_user.put(agent, USER, __file__, str(secret))
    assert secret.read_text() == "root's"
    assert not (folder / "back").exists()


def test_only_regular_files_are_fetched(agent: GuestAgent, folder: Path) -> None:
    for path in (folder, Path("/dev/zero"), folder / "missing"):
        with pytest.raises(CopyError, match="is not a regular file"):
            as_user.fetch(agent, USER, str(path), str(folder / "back"))


class Become:
    """What a plugin of Ansible knows about its program."""

    name = "su"

    def check_success(self, output: bytes) -> bool:
        return b"BECOME-SUCCESS" in output

    def check_password_prompt(self, output: bytes) -> bool:
        return output.endswith(b"Password: ")

    def check_incorrect_password(self, output: bytes) -> bool:
        return b"Authentication failure" in output

    def get_option(self, _name: str) -> str:
        return "s3cret"


# Asks on stderr, as su does; reads nothing else before the change of user.
ASK = """
printf 'Password: ' >&2
read -r word
sleep 0.2
[ "$word" = "$0" ] || { echo 'su: Authentication failure' >&2; sleep 0.2; exit 1; }
echo BECOME-SUCCESS
cat
"""


def test_a_password_is_given_after_the_prompt(agent: GuestAgent) -> None:
    if not agent.info().offers("qga-exec"):
        with pytest.raises(AnsibleConnectionFailure, match="a password for su requires qga"):
            escalation.run(agent, ["sh", "-c", ASK, "s3cret"], USER, b"input", Become(), 10)
        return
    result = escalation.run(agent, ["sh", "-c", ASK, "s3cret"], USER, b"input", Become(), 10)
    assert result.stdout == b"BECOME-SUCCESS\ninput"
    assert result.returncode == 0
    with pytest.raises(AnsibleConnectionFailure, match="incorrect su password"):
        escalation.run(agent, ["sh", "-c", ASK, "another"], USER, b"input", Become(), 10)
    with pytest.raises(AnsibleConnectionFailure, match="timed out waiting for su"):
        escalation.run(agent, ["sleep", "60"], USER, b"input", Become(), 0.5)
    with pytest.raises(AnsibleConnectionFailure, match="su writes more than it should"):
        escalation.run(agent, ["yes"], USER, b"input", Become(), 10)
