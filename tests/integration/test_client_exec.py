"""GuestAgent.exec with each agent: as a user, in a directory, with a timeout."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from qga.client import (
    AgentError,
    ConnectError,
    GuestAgent,
    Limits,
    ProgramFailed,
    ProgramNotStarted,
    ProgramTimeout,
)
from qga.client.captured import environment
from qga.client.programs import PlainProgram, start_streamed
from tests.integration.agent_process import wait_for
from tests.integration.client_agents import AGENTS, running
from tests.integration.test_exec_bounds import processes

AS_WHO = "id -u; id -g; id -Gn; echo $HOME $SHELL $USER $LOGNAME; pwd"


@pytest.fixture(scope="module", params=AGENTS)
def agent(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GuestAgent]:
    folder = tmp_path_factory.mktemp("agent")
    with running(request.param, folder) as address, GuestAgent(address, 30) as agent:
        yield agent


@pytest.fixture
def made() -> Iterator[Path]:
    """A file that any user could create."""
    with TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        yield Path(name) / "made"


def test_a_user_and_a_directory(agent: GuestAgent) -> None:
    result = agent.exec(["sh", "-c", AS_WHO], user="games", cwd="/usr/lib", text=True)
    home = "/usr/games /usr/sbin/nologin games games"
    assert result.stdout.splitlines() == ["5", "60", "games", home, "/usr/lib"]
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("who", "ids"),
    [
        ({"user": "nobody", "group": "games"}, "65534 60"),
        ({"user": "65534"}, "65534 65534"),
        ({"group": "games"}, "0 60"),
    ],
)
def test_a_group(agent: GuestAgent, who: dict[str, Any], ids: str) -> None:
    result = agent.exec(["sh", "-c", "echo $(id -u) $(id -g)"], text=True, **who)
    assert result.stdout == f"{ids}\n"


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"user": ""}, "user is empty"),
        ({"group": ""}, "group is empty"),
        ({"cwd": ""}, "cwd is empty"),
        ({"timeout": math.nan}, "timeout is nan"),
        ({"timeout": "1m"}, "timeout must be a number of seconds, not '1m'"),
        ({"limits": {"memory": 1}}, "limits must be Limits"),
        ({"limits": Limits(cpu=math.inf)}, "limits.cpu is inf"),
    ],
)
def test_nothing_runs_in_a_way_that_cannot_be(
    agent: GuestAgent, made: Path, how: dict[str, Any], reason: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=reason):
        agent.exec(["touch", str(made)], **how)
    assert not made.exists()


def test_no_timeout_as_in_subprocess(agent: GuestAgent) -> None:
    assert agent.exec(["echo", "1"], timeout=None).stdout == b"1\n"


def test_the_environment_stays_as_it_was_given(agent: GuestAgent) -> None:
    result = agent.exec(["/usr/bin/env"], user="nobody", env={"A": "1", "PATH": "/bin"}, text=True)
    assert sorted(result.stdout.splitlines()) == ["A=1", "PATH=/bin"]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"user": "no-such-user"}, "the user 'no-such-user' is unknown in this guest"),
        ({"user": "$(touch /x)"}, r"the user '\$\(touch /x\)' is unknown in this guest"),
        ({"group": "no-such"}, "the group 'no-such' is unknown in this guest"),
        ({"cwd": "/no/such"}, "/no/such'"),
        ({"cwd": "/root", "user": "nobody"}, "'/root'.*(Permission denied| as nobody)"),
        ({"cwd": "/etc/passwd"}, "/etc/passwd'"),
        ({"cwd": "-x", "user": "nobody"}, "'-x'"),
    ],
)
def test_nothing_is_started_where_it_cannot_be(
    agent: GuestAgent, made: Path, how: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ProgramNotStarted, match=reason) as raised:
        agent.exec(["touch", str(made)], **how)
    assert isinstance(raised.value, OSError)
    assert not made.exists()


def test_a_program_that_is_missing(agent: GuestAgent) -> None:
    with pytest.raises(OSError, match="No such file or directory") as raised:
        agent.exec(["/nonexistent"])
    assert raised.value.errno == errno.ENOENT


@pytest.mark.parametrize("user", [None, "nobody"])
def test_a_program_that_takes_too_long(agent: GuestAgent, user: str | None) -> None:
    script = "echo some; trap '' TERM; sleep 4721; sleep 4722"
    since = time.monotonic()
    with pytest.raises(
        TimeoutError, match=r"timed out after 0.5 s: the program took too"
    ) as raised:
        agent.exec(["sh", "-c", script], timeout=0.5, user=user)
    assert time.monotonic() - since < 9
    assert isinstance(raised.value, ProgramTimeout)
    assert raised.value.stdout in (b"some\n", b"")  # guest-exec gives it only at the end
    wait_for(lambda: not processes("4721") + processes("4722"), "the end of all of it")


def test_check(agent: GuestAgent) -> None:
    assert agent.exec(["true"], check=True).returncode == 0
    for script, code, words in (
        ("echo out; exit 3", 3, "exited with 3"),
        ("echo out; kill -TERM $$", -15, "was killed by signal 15"),
    ):
        with pytest.raises(ProgramFailed, match=f"'sh' {words}") as raised:
            agent.exec(["sh", "-c", script], check=True, text=True)
        assert (raised.value.returncode, raised.value.stdout) == (code, "out\n")


def test_text(agent: GuestAgent) -> None:
    result = agent.exec(["sh", "-c", r"cat; printf '\377' >&2"], input="grüße", text=True)
    assert (result.stdout, result.stderr) == ("grüße", "\ufffd")


@pytest.mark.parametrize(
    ("capture", "expected"),
    [(True, ("o\n", "e\n")), (False, ("", "")), ("stdout", ("o\n", "")), ("stderr", ("", "e\n"))],
)
def test_what_is_captured(agent: GuestAgent, capture: Any, expected: tuple[str, str]) -> None:
    argv = ["sh", "-c", "echo o; echo e >&2"]
    result = agent.exec(argv, capture=capture, text=True, user="nobody")
    assert (result.stdout, result.stderr) == expected


def test_both_streams_as_one(agent: GuestAgent) -> None:
    script = "echo 1; echo 2 >&2; echo 3"
    result = agent.exec(["sh", "-c", script], capture="merged", text=True, user="nobody")
    assert result.stdout == "1\n2\n3\n"


def test_input_of_a_program_of_a_user(agent: GuestAgent) -> None:
    data = bytes(range(256)) * 4000
    assert agent.exec(["cat"], input=data, user="nobody", timeout=60).stdout == data


def test_programs_for_qgactl(agent: GuestAgent) -> None:
    argv = ["sh", "-c", "id -un; pwd"]
    try:
        program: Any = start_streamed(agent, argv, user="games", cwd="/usr", timeout=math.inf)
    except AgentError:
        program = PlainProgram(agent, argv, user="games", cwd="/usr")
    written = b""
    with program:
        while program.result is None:
            written += program.poll().stdout
    assert written == b"games\n/usr\n"
    assert environment(agent, user="games")["HOME"] == "/usr/games"


def test_an_agent_that_is_not_there() -> None:
    with pytest.raises(ConnectionError) as raised:
        GuestAgent("unix:/nonexistent").ping()
    assert isinstance(raised.value, ConnectError)


def test_input_that_does_not_fit_into_a_request(
    agent: GuestAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As through libvirt, which passes 128 KiB. Nothing is left of it."""
    encode = GuestAgent._request

    def request(agent: GuestAgent, command: str, arguments: dict[str, Any]) -> bytes:
        encoded = encode(agent, command, arguments)
        assert len(encoded) <= 128 * 1024
        return encoded

    monkeypatch.setattr(GuestAgent, "_request", request)
    monkeypatch.setattr(GuestAgent, "max_data", lambda _: 64 * 1024)
    monkeypatch.setattr(GuestAgent, "max_output", lambda _: 3 << 20)
    data = os.urandom(1_000_000)
    script = 'sha256sum; readlink /proc/self/fd/0; echo "$WORD"'
    result = agent.exec(["sh", "-c", script], input=data, user="games", env={"WORD": "a b"})
    digest, file, word = result.stdout.decode().splitlines()
    assert digest.split()[0] == hashlib.sha256(data).hexdigest()
    assert word == "a b"
    assert not Path(file.removesuffix(" (deleted)")).exists()
