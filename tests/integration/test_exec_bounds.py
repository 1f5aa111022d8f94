"""qga-exec as another user, and with timeouts and limits."""

from __future__ import annotations

import os
import socket
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.agent_process import (
    PATIENCE,
    AgentProcess,
    Client,
    listening,
    refused,
    request,
    wait_for,
)
from tests.integration.guest_program import output, run
from tests.integration.test_streams import ended, start

AS_WHO = "id -u; id -g; id -Gn; echo $HOME $SHELL $USER $LOGNAME; pwd"


def processes(word: str) -> list[str]:
    """The processes with this word in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if word.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(entry.name)
            except OSError:  # it has ended
                pass
    return found


def test_a_user_with_its_groups_and_environment(client: Client) -> None:
    over = ended(client, start(client, AS_WHO, user="games", directory="/usr"))
    assert over["out"].decode().splitlines() == [
        "5", "60", "games", "/usr/games /usr/sbin/nologin games games", "/usr",
    ]  # fmt: skip


@pytest.mark.parametrize(("user", "group"), [("65534", "games"), ("nobody", "60")])
def test_a_group_takes_the_place_of_the_primary_one(client: Client, user: str, group: str) -> None:
    over = ended(client, start(client, AS_WHO, user=user, group=group))
    assert over["out"].decode().splitlines()[:3] == ["65534", "60", "games"]


def test_a_group_alone(client: Client) -> None:
    over = ended(client, start(client, "id -u; id -g", group="games"))
    assert over["out"].split() == [str(os.geteuid()).encode(), b"60"]


def test_numbers_need_no_account(client: Client) -> None:
    over = ended(
        client,
        start(client, "id -u; id -G; echo $HOME $SHELL $USER; pwd", user="4711", group="4712"),
    )
    assert over["out"].decode().splitlines() == ["4711", "4712", "/ /bin/sh 4711", os.getcwd()]
    with refused("the user '4711' is unknown in this guest"):
        start(client, "exit", user="4711")


@pytest.mark.parametrize(
    "user", ["no-such-user", "4294967295", "-1", "", "a\0b", "1.5", "9" * 5000]
)
def test_an_unknown_user(client: Client, tmp_path: Path, user: str) -> None:
    with refused(f"the user '{user}' is unknown in this guest"):
        start(client, f"touch {tmp_path}/made", user=user)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("group", ["no-such-group", "4294967295", "-1", "", "9" * 5000])
def test_an_unknown_group(client: Client, tmp_path: Path, group: str) -> None:
    with refused(f"the group '{group}' is unknown in this guest"):
        start(client, f"touch {tmp_path}/made", group=group)
    assert not (tmp_path / "made").exists()


def test_the_environment_of_a_request_is_all_of_it(client: Client) -> None:
    pid = client.call("qga-exec", path="/usr/bin/env", env=["A=1"], user="nobody")["pid"]
    assert ended(client, pid)["out"] == b"A=1\n"


def test_a_program_that_ends_in_time(client: Client) -> None:
    over = ended(client, start(client, "echo fine; exit 3", timeout=30, user="nobody"))
    assert (over["out"], over["exitcode"], over.get("ended-by")) == (b"fine\n", 3, None)


@pytest.mark.parametrize(
    ("script", "signal"),
    [
        ("sleep 4711", 15),
        ("trap '' TERM; echo; sleep 4711; sleep 4712; sleep 4713", 9),
        ("kill -STOP $$; sleep 4711", 15),
        ("sleep 4711 & exec sleep 4712", 15),
        ("setsid sh -c \"trap '' TERM; sleep 4711; sleep 4712\" & wait", 15),
    ],
)
def test_the_end_of_what_takes_too_long(client: Client, script: str, signal: int) -> None:
    since = time.monotonic()
    over = ended(client, start(client, script, timeout=0.5, user="nobody"))
    assert (over["signal"], over["ended-by"]) == (signal, "timeout")
    assert time.monotonic() - since < 5
    wait_for(lambda: not processes("4711") + processes("4712"), "the end of all of it")


def test_what_is_left_behind_ends_with_the_program(client: Client) -> None:
    over = ended(client, start(client, "sleep 4714 >/dev/null 2>&1 & echo done", timeout=100))
    assert (over["exitcode"], over.get("ended-by"), over["out"]) == (0, None, b"done\n")
    wait_for(lambda: not processes("4714"), "its end")


def test_output_that_comes_late_is_not_lost(client: Client) -> None:
    over = ended(client, start(client, "(sleep 0.3; seq 6) &", timeout=100))
    assert (over["out"], over.get("out-truncated")) == (b"1\n2\n3\n4\n5\n6\n", None)


@pytest.mark.parametrize("timeout", [0, -1, -0.5])
def test_no_timeout(client: Client, timeout: float) -> None:
    with refused(f"Parameter 'timeout' is {timeout}; use a number of seconds above 0"):
        start(client, "true", timeout=timeout)


@pytest.fixture
def ruled(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[AgentProcess, Client]]:
    with (
        listening(tmp_path, config=f"[exec]\n{request.param}\n") as agent,
        agent.connect() as client,
    ):
        yield agent, client


@pytest.mark.parametrize("ruled", ["timeout=1"], indirect=True)
def test_a_rule_forces_a_timeout(ruled: tuple[AgentProcess, Client]) -> None:
    _, client = ruled
    since = time.monotonic()
    assert run(client, "sleep", "4715") == {"exited": True, "signal": 15}
    over = ended(client, start(client, "sleep 4715", timeout=100))
    assert (over["signal"], over["ended-by"]) == (15, "timeout")
    assert time.monotonic() - since < 10
    assert ended(client, start(client, "sleep 4715", timeout=0.1))["ended-by"] == "timeout"


@pytest.mark.parametrize("ruled", ["user=nobody"], indirect=True)
def test_a_rule_forces_a_user(ruled: tuple[AgentProcess, Client]) -> None:
    agent, client = ruled
    assert ended(client, start(client, "id -un", user="nobody"))["out"] == b"nobody\n"
    for how in ({"user": "root"}, {"user": "no-such-user"}, {"user": "nobody", "group": "games"}):
        refusal = client.refusal("qga-exec", path="/bin/sh", **how)
        assert "has been refused: programs run as nobody, for [exec] user of" in refusal
    agent.wait_for_log("line 2: user=nobody")


OPENS_ITS_STREAMS = "cat /dev/stdin >/dev/stdout; echo wrong >/dev/stderr"


@pytest.mark.parametrize("tty", [False, True])
def test_a_user_can_open_the_streams_by_name(client: Client, tty: bool) -> None:
    """As scripts and daemons do that log to /dev/stderr."""
    pid = start(client, OPENS_ITS_STREAMS, user="nobody", tty=tty)
    client.call("qga-exec-write", pid=pid, buf_b64=b64encode(b"right\n").decode(), eof=True)
    over = ended(client, pid)
    lines = (over["out"] + over["err"]).split()
    assert (lines[-2:], over["exitcode"]) == ([b"right", b"wrong"], 0)


@pytest.mark.parametrize("ruled", ["user=nobody"], indirect=True)
def test_a_forced_user_can_open_the_streams_by_name(ruled: tuple[AgentProcess, Client]) -> None:
    _, client = ruled
    text = b64encode(b"right\n").decode()
    assert output(client, OPENS_ITS_STREAMS, input_data=text) == "right\n"


@pytest.mark.parametrize("ruled", ["users=nobody; gam*"], indirect=True)
def test_a_rule_names_the_users_to_choose_from(ruled: tuple[AgentProcess, Client]) -> None:
    agent, client = ruled
    for user, name in (("nobody", b"nobody"), ("65534", b"nobody"), ("games", b"games")):
        assert ended(client, start(client, "id -un", user=user))["out"].strip() == name
    with refused("the user 'gambler' is unknown in this guest"):
        start(client, "true", user="gambler")
    for user in ("root", "0", "no-such-user", "daemon"):
        refusal = client.refusal("qga-exec", path="/bin/sh", user=user)
        assert f"has been refused: the user '{user}' is not in [exec] users of" in refusal
    refusal = client.refusal("qga-exec", path="/bin/sh", user="nobody", group="games")
    assert "a group cannot be chosen where [exec] users is set" in refusal
    agent.wait_for_log("line 2: users=nobody;gam*")


@pytest.mark.parametrize("ruled", ["users=nobody"], indirect=True)
def test_where_users_are_named_nothing_runs_as_root(ruled: tuple[AgentProcess, Client]) -> None:
    _, client = ruled
    for command in ("guest-exec", "qga-exec"):
        refusal = client.refusal(command, path="/bin/true")
        assert "the agent's own user is not in [exec] users of" in refusal


@pytest.mark.parametrize("ruled", ["users=nobody\nuser=games"], indirect=True)
def test_a_user_for_requests_that_choose_none(ruled: tuple[AgentProcess, Client]) -> None:
    _, client = ruled
    assert ended(client, start(client, "id -un"))["out"] == b"games\n"
    assert ended(client, start(client, "id -un", user="games"))["out"] == b"games\n"
    assert ended(client, start(client, "id -un", user="nobody"))["out"] == b"nobody\n"


@pytest.mark.parametrize("ruled", ["allow=/usr/bin/id ..."], indirect=True)
def test_a_rule_that_speaks_of_no_user_allows_none(ruled: tuple[AgentProcess, Client]) -> None:
    """As another user the same program would read other files."""
    _, client = ruled
    for how in ({"user": "nobody"}, {"user": "no-such-user"}, {"group": "games"}):
        refusal = client.refusal("qga-exec", path="/usr/bin/id", **how)
        assert "has been refused: programs run as the agent's user, for [exec] allow" in refusal
    pid = client.call("qga-exec", path="/usr/bin/id", arg=["-u"], timeout=60)["pid"]
    assert ended(client, pid)["out"] == b"0\n"


COUNT = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"  # more than a tick
BY_TIME: dict[str, object] = {"ended-by": "cpu-seconds"}


@pytest.mark.parametrize(
    ("script", "limits", "end"),
    [
        ("exec yes", {"output": 1000}, {"signal": 9, "ended-by": "output"}),
        ("while :; do :; done", {"cpu-seconds": 1}, {"signal": 24, "ended-by": "cpu-seconds"}),
        ("trap '' XCPU; while :; do :; done", {"cpu-seconds": 1}, {"signal": 9, **BY_TIME}),
        # As the kernel does with a program that has ignored SIGXCPU.
        ("ulimit -S -t 2; kill -9 $$", {"cpu-seconds": 1}, {"signal": 9, **BY_TIME}),
        ("kill -9 $$", {"cpu-seconds": 1}, {"signal": 9}),
        (COUNT, {"cpu-seconds": 2**55}, {"exitcode": 0}),  # 0 nanoseconds in 64 bits
        (":", {"cpu-seconds": 2**63 - 1, "memory": 2**63 - 1}, {"exitcode": 0}),
        ("exec cat /dev/zero >$1", {"file-size": 5000}, {"signal": 25, "ended-by": "file-size"}),
        ("head -c 1000 /dev/zero", {"output": 1000}, {"exitcode": 0}),
        ("ulimit -n; ulimit -f", {"open-files": 20, "file-size": 2**62}, {"exitcode": 0}),
    ],
)
def test_limits(
    client: Client, tmp_path: Path, script: str, limits: dict[str, int], end: dict[str, object]
) -> None:
    os.chmod(tmp_path, 0o755)
    arg = ["-c", script, "sh", str(tmp_path / "file")]
    pid = client.call("qga-exec", path="/bin/sh", arg=arg, limits=limits)["pid"]
    over = ended(client, pid)
    assert {name: over.get(name) for name in end} == end
    assert over.get("ended-by") == end.get("ended-by")
    if "output" in limits:
        assert len(over["out"]) == over["out-total"] == 1000
    if "open-files" in limits:
        assert over["out"].split()[0] == b"20"
    if limits.get("file-size") == 5000:
        assert (tmp_path / "file").stat().st_size == 5000


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"memory": 0}, "Parameter 'limits.memory' is 0; use a number from 1 up"),
        ({"cpu": 0.001}, "Parameter 'limits.cpu' is 0.001; use a number from 0.01 up"),
        ({"processes": -1}, "Parameter 'limits.processes' is -1; use a number from 1 up"),
        ({"memory": "1M"}, "Invalid parameter type for 'limits.memory', expected: integer"),
        ({"memroy": 1}, "Parameter 'limits.memroy' is unexpected"),
    ],
)
def test_no_limits(client: Client, limits: dict[str, object], reason: str) -> None:
    with refused(reason):
        client.call("qga-exec", path="true", limits=limits)


@pytest.mark.parametrize("ruled", ["open-files=64\noutput=1000\nfile-size=4K"], indirect=True)
def test_rules_force_limits(ruled: tuple[AgentProcess, Client]) -> None:
    """A request may ask for less but not for more. They apply to guest-exec as well."""
    _, client = ruled
    wanted = {"output": 500, "open-files": 1000}
    over = ended(client, start(client, "ulimit -n; exec yes", limits=wanted))
    assert (over["out"][:3], len(over["out"]), over["ended-by"]) == (b"64\n", 500, "output")
    status = run(client, "yes", capture_output=True)
    assert (status["signal"], len(status["out-data"]), status["out-truncated"]) == (9, 1000, True)


def test_the_log_has_the_user(tmp_path: Path) -> None:
    with listening(tmp_path, "-v") as agent, agent.connect() as client:
        ended(client, start(client, "true", user="nobody", limits={"output": 5}))
        agent.wait_for_log('"user":"nobody","limits":{"output":5}')


@pytest.mark.parametrize("command", ["guest-exec", "qga-exec"])
def test_a_name_service_that_does_not_answer(tmp_path: Path, command: str) -> None:
    """Looking up the groups of a user hangs on a FIFO; other clients are served meanwhile."""
    groups = tmp_path / "group"
    os.mkfifo(groups)
    script = f'mount --bind {groups} /etc/group; exec "$@"'
    launcher = ["unshare", "--mount", "sh", "-ec", script, "sh"]
    config = "[exec]\nuser=nobody\n"
    with (
        listening(tmp_path, config=config, launcher=launcher) as agent,
        agent.connect() as client,
        agent.connect() as other,
    ):
        client.send(request(command, path="/usr/bin/id", arg=["-u"]))
        with pytest.raises(socket.timeout):
            client.socket.settimeout(0.5)
            client.result()
        client.socket.settimeout(PATIENCE)
        other.socket.settimeout(5)
        assert other.call("guest-ping") == {}
        wait_for(lambda: fed(groups, client), "the agent to read its groups")
        assert client.result()["pid"] > 0


def fed(groups: Path, client: Client) -> bool:
    """Let a reader of the FIFO reach its end, and tell whether the client has its reply by now."""
    try:
        fd = os.open(groups, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # nobody reads
        return client.has_data()
    try:
        os.write(fd, b"nogroup:x:65534:\n")
    except BrokenPipeError:  # glibc closes a file that it cannot seek in, perhaps before this
        pass
    finally:
        os.close(fd)
    return client.has_data()
