"""[exec]: which programs run, as whom and with which environment; [accounts]."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from qga.errors import QgaError
from tests.integration.agent_process import AgentProcess, Client, Refused, listening
from tests.integration.guest_program import run
from tests.integration.test_streams import ended

REFUSED = "Command guest-exec has been refused: "


@contextmanager
def guarded(folder: Path, config: str) -> Iterator[tuple[AgentProcess, Client]]:
    with listening(folder, config=config) as agent, agent.connect() as client:
        yield agent, client


def program(path: Path, text: str = "#!/bin/sh\necho ran >>$1\n") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def output(client: Client, path: str, *arg: str, **more: Any) -> str:
    status = run(client, path, *arg, capture_output=True, **more)
    assert status["exitcode"] == 0, status
    text: bytes = status.get("out-data", b"")
    return text.decode()


def test_only_what_is_allowed_is_run(tmp_path: Path) -> None:
    good, bad = program(tmp_path / "good"), program(tmp_path / "bad")
    trace = tmp_path / "trace"
    with guarded(tmp_path, f"[exec]\nallow={good} {trace}\n") as (agent, client):
        assert run(client, str(good), str(trace))["exitcode"] == 0
        for path, arg in (
            (bad, [str(trace)]),
            (good, []),
            (good, [str(trace), "more"]),
            (good, [f"{trace}2"]),
            (good, ["--password=s3cret"]),
            ("sh", ["-c", f"echo ran >>{trace}"]),
            ("/none", []),
        ):
            with pytest.raises(Refused) as raised:
                client.call("guest-exec", path=str(path), arg=arg)
            assert str(raised.value).startswith(f"{REFUSED}the program '")
            assert raised.value.error_class == "GenericError"
        agent.wait_for_log("line 2: allow=")
        assert "s3cret" not in agent.log
    assert trace.read_text() == "ran\n"
    assert not Path(f"{trace}2").exists()


def test_a_link_is_its_target_unless_it_is_allowed_itself(tmp_path: Path) -> None:
    """Permission for one name of a program with several names does not extend to the others."""
    called = program(tmp_path / "called", "#!/bin/sh\necho $0\n")
    (tmp_path / "one").symlink_to("called")
    (tmp_path / "two").symlink_to("called")
    config = f"[exec]\nallow={tmp_path}/one\n"
    with guarded(tmp_path, config) as (agent, client):
        assert output(client, f"{tmp_path}/one") == f"{called}\n"
        refusal = client.refusal("guest-exec", path=f"{tmp_path}/two")
        assert refusal.startswith(f"{REFUSED}the program '{tmp_path}/two' is not in [exec] allow ")
        agent.wait_for_log(f"its real path is '{called}'")


def test_a_program_is_called_by_its_real_path(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/bin/sh")
    shell = os.path.realpath("/bin/sh")
    name = "tr '\\0' ' ' </proc/$$/cmdline"
    for allowed, called in ((shell, shell), (f"{tmp_path}/link", f"{tmp_path}/link")):
        folder = tmp_path / str(len(allowed))
        folder.mkdir()
        with guarded(folder, f"[exec]\nallow={allowed}\n") as (_, client):
            assert output(client, f"{tmp_path}/link", "-c", name).startswith(f"{called} -c ")


def test_a_program_that_others_could_replace_is_refused(tmp_path: Path) -> None:
    theirs = program(tmp_path / "theirs" / "program")
    trace = tmp_path / "trace"
    with guarded(tmp_path, f"[exec]\nallow={theirs}\n") as (_, client):
        theirs.parent.chmod(0o777)
        assert client.refusal("guest-exec", path=str(theirs), arg=[str(trace)]) == (
            f"{REFUSED}'{theirs}' could be replaced by another user: {theirs.parent} is writable "
            "by others (mode 0777); chmod go-w it"
        )
        assert not trace.exists()
        theirs.parent.chmod(0o755)
        run(client, str(theirs), str(trace))
    assert trace.read_text() == "ran\n"


def test_a_script_whose_interpreter_others_could_replace_is_refused(tmp_path: Path) -> None:
    interpreter = program(tmp_path / "theirs" / "interpreter", "#!/bin/sh\necho ran\n")
    allowed = program(tmp_path / "script", f"#!{interpreter}\n")
    with guarded(tmp_path, f"[exec]\nallow={allowed}\n") as (_, client):
        assert output(client, str(allowed)) == "ran\n"
        interpreter.chmod(0o777)
        assert client.refusal("guest-exec", path=str(allowed)) == (
            f"{REFUSED}'{allowed}' could be replaced by another user: {interpreter} is writable "
            "by others (mode 0777); chmod go-w it"
        )


@pytest.mark.parametrize(
    ("keys", "kept"),
    [
        ("", False),
        ("environment=keep\n", True),
        ("environment=drop\n", False),
    ],
)
def test_the_environment_is_dropped_where_programs_are_limited(
    tmp_path: Path, keys: str, kept: bool
) -> None:
    env = os.path.realpath("/usr/bin/env")
    with guarded(tmp_path, f"[exec]\nallow={env}\n{keys}") as (_, client):
        asked = output(client, env, env=["LD_PRELOAD=", "BASH_ENV=/x"]).splitlines()
        own = dict(line.split("=", 1) for line in output(client, env).splitlines())
    assert ("BASH_ENV=/x" in asked) == kept
    assert {"HOME", "USER", "LOGNAME", "PATH"} <= own.keys()
    if not kept:
        assert asked == [f"{name}={value}" for name, value in own.items()]
        assert own == {
            **{name: own[name] for name in ("HOME", "USER", "LOGNAME", "PATH")},
            **dict.fromkeys(("PAGER", "GIT_PAGER", "SYSTEMD_PAGER"), "cat"),
            **dict.fromkeys(("EDITOR", "VISUAL", "BROWSER"), "false"),
            "LESSSECURE": "1",
        }


def test_a_user_to_run_as(tmp_path: Path) -> None:
    with guarded(tmp_path, "[exec]\nuser=nobody\n") as (_, client):
        assert output(client, "id", "-un") == "nobody\n"
        assert output(client, "id", "-Gn") == "nogroup\n"
        assert output(client, "sh", "-c", "echo $USER $LOGNAME $HOME") == (
            "nobody nobody /nonexistent\n"
        )


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that anybody can enter."""
    with TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def closed(public: Path) -> Path:
    """A directory that only root can enter, with one below it."""
    closed = public / "closed"
    (closed / "below").mkdir(parents=True)
    program(closed / "program")
    closed.chmod(0o700)
    return closed


def test_a_program_of_the_configured_user_is_not_run_as_a_chosen_one(
    tmp_path: Path, public: Path
) -> None:
    """Users who can replace a program may have it run only as themselves."""
    script = program(public / "script", "#!/bin/sh\nid -un\n")
    os.chown(script, 65534, -1)
    rules = f"[exec]\nallow={script}\nuser=nobody\nusers=games\n"
    with guarded(tmp_path, rules) as (_, client):
        pid = client.call("qga-exec", path=str(script))["pid"]
        assert ended(client, pid)["out"] == b"nobody\n"
        refusal = client.refusal("qga-exec", path=str(script), user="games")
        assert "could be replaced by another user" in refusal


@pytest.mark.parametrize("tty", [False, True])
def test_a_directory_is_entered_with_the_rights_of_the_user(
    tmp_path: Path, public: Path, closed: Path, tty: bool
) -> None:
    with guarded(tmp_path, "[exec]\nuser=nobody\n") as (_, client):
        for place in (closed, closed / "below", closed / "missing", closed / "program"):
            for path in ("pwd", "/bin/pwd"):
                assert client.refusal("qga-exec", path=path, directory=str(place), tty=tty) == (
                    f"failed to enter the directory '{place}': Permission denied"
                )
        pid = client.call("qga-exec", path="pwd", directory=str(public), tty=tty)["pid"]
        assert ended(client, pid)["out"].strip() == str(public).encode()


def test_a_program_is_run_with_the_rights_of_the_user(tmp_path: Path, closed: Path) -> None:
    """An error does not reveal what only root can see."""
    with guarded(tmp_path, "[exec]\nuser=nobody\n") as (_, client):
        for command in ("guest-exec", "qga-exec"):
            told = {
                client.refusal(command, path=f"{closed}/{name}").replace(name, "*")
                for name in ("program", "below", "missing")
            }
            assert len(told) == 1
            assert "Permission denied" in told.pop()
            told = {
                client.refusal(command, path=name, env=[f"PATH={closed}"]).replace(name, "*")
                for name in ("program", "below", "missing")
            }
            assert len(told) == 1


@pytest.mark.parametrize(
    ("keys", "gets_one"),
    [
        ("allow={}\n", False),
        ("allow={}\nterminal=false\n", False),
        ("allow={}\nterminal=true\n", True),
        ("allow={}\nenvironment=keep\n", False),
        ("terminal=false\n", False),
        ("user=root\n", True),
    ],
)
def test_a_terminal_is_a_way_to_a_shell(tmp_path: Path, keys: str, gets_one: bool) -> None:
    """A pager on a terminal runs `!id`, so none is started. This program takes the place of one."""
    pager = program(tmp_path / "paged", "#!/bin/sh\nif test -t 0; then exec sh; fi\n")
    with guarded(tmp_path, "[exec]\n" + keys.format(pager)) as (agent, client):
        if gets_one:
            pid = client.call("qga-exec", path=str(pager), tty=True)["pid"]
        else:
            assert "gets no terminal" in client.refusal("qga-exec", path=str(pager), tty=True)
            agent.wait_for_log("qga-exec refused: a program allowed")
            pid = client.call("qga-exec", path=str(pager))["pid"]
        typed = f"touch {tmp_path}/made; exit\n"
        with suppress(Refused):
            client.call(
                "qga-exec-write", pid=pid, buf_b64=base64.b64encode(typed.encode()).decode()
            )
        ended(client, pid)
    assert (tmp_path / "made").exists() == gets_one


def test_an_unknown_user(tmp_path: Path) -> None:
    with guarded(tmp_path, "[exec]\nuser=nobody-at-all\n") as (_, client):
        assert client.refusal("guest-exec", path="true") == (
            "the user 'nobody-at-all' of [exec] user is unknown in this guest"
        )


def test_children_of_another_channel_are_unknown(tmp_path: Path) -> None:
    door = tmp_path / "door"
    config = f"[channel other]\nmethod=unix-listen\npath={door}\n"
    with listening(tmp_path, config=config) as agent:
        agent.wait_for_socket(door)
        with agent.connect() as client, agent.connect(door) as other:
            pid = client.call("guest-exec", path="true")["pid"]
            assert other.refusal("guest-exec-status", pid=pid) == f"PID {pid} does not exist"
            client.call("guest-exec-status", pid=pid)


def test_accounts(tmp_path: Path) -> None:
    shadow = Path("/etc/shadow")
    before = shadow.read_bytes()
    keys = Path("/root/.ssh/authorized_keys")
    had_keys = keys.read_bytes() if keys.exists() else None
    with guarded(tmp_path, "[accounts]\nallow=qga-no-such-*\n") as (agent, client):
        for command, more in (
            ("guest-set-user-password", {"password": "c2VjcmV0", "crypted": False}),
            ("guest-ssh-add-authorized-keys", {"keys": ["ssh-rsa AAAA"]}),
            ("guest-ssh-remove-authorized-keys", {"keys": ["ssh-rsa AAAA"]}),
        ):
            assert client.refusal(command, username="root", **more) == (
                f"Command {command} has been refused: the account 'root' is not in [accounts] "
                f"allow of {tmp_path}/qemu-ga.conf"
            )
            refusal = client.refusal(command, username="qga-no-such-user", **more)
            assert "has been refused" not in refusal
        agent.wait_for_log("guest-ssh-remove-authorized-keys refused")
        assert "c2VjcmV0" not in agent.log
        assert "secret" not in agent.log
    assert shadow.read_bytes() == before
    assert (keys.read_bytes() if keys.exists() else None) == had_keys


def test_a_hook_that_others_may_write_is_not_run(tmp_path: Path) -> None:
    hooks = import_module("qga.commands._hooks")
    trace = tmp_path / "trace"
    hook = program(tmp_path / "hook", f"#!/bin/sh\necho $1 >>{trace}\n")
    hook.chmod(0o775)
    with pytest.raises(QgaError, match=r"was not run: .*/hook is writable by others \(mode 0775\)"):
        hooks.Hooks(str(hook), 30).freeze()
    assert not trace.exists()
    hook.chmod(stat.S_IMODE(hook.stat().st_mode) & ~0o022)
    hooks.Hooks(str(hook), 30).freeze()
    assert trace.read_text() == "freeze\n"


@pytest.mark.parametrize("theirs", [True, False])
@pytest.mark.parametrize("kind", ["FIFO", "endless"])
def test_a_hook_that_is_not_a_file_is_not_read(tmp_path: Path, kind: str, theirs: bool) -> None:
    """The freeze would wait for a FIFO, and every thaw behind it."""
    hooks = import_module("qga.commands._hooks")
    hook = tmp_path / "hooks" / "hook"
    hook.parent.mkdir()
    if kind == "FIFO":
        os.mkfifo(hook)
    else:
        hook.symlink_to("/dev/zero")
    if theirs:
        hook.parent.chmod(0o777)
    reason = "not a regular file"
    if theirs or kind == "endless":
        reason = "was not run: .* is writable by others"
    for step in (hooks.Hooks(str(hook), 30).freeze, hooks.Hooks(str(hook), 30).thaw):
        with pytest.raises(QgaError, match=reason):
            step()


def test_a_missing_program_that_is_allowed_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    reason = "No such file or directory"
    with guarded(tmp_path, f"[exec]\nallow={tmp_path}/*\n") as (_, client):
        assert client.refusal("qga-exec", path=str(missing)) == (
            f"failed to start '{missing}': {reason}"
        )
        assert client.refusal("guest-exec", path=str(missing)) == (
            f"Failed to execute child process \u201c{missing}\u201d ({reason})"
        )
