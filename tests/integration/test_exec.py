"""guest-exec and guest-exec-status: how a program is run, and what is reported about it."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qga.programs.child import MAX_CAPTURE
from tests.integration.agent_process import AgentProcess, Client, listening, wait_for
from tests.integration.guest_program import final_status, output, run, start_program


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    environment = {**os.environ, "OF_THE_AGENT": "yes"}
    with listening(tmp_path_factory.mktemp("agent"), env=environment) as agent:
        yield agent


OUT = {"out-data": b"to out\n", "out-truncated": False}
ERR = {"err-data": b"to err\n", "err-truncated": False}


@pytest.mark.parametrize(
    ("mode", "streams"),
    [
        ("none", {}),
        ("stdout", OUT),
        ("stderr", ERR),
        ("separated", {**OUT, **ERR}),
        ("merged", {"out-data": b"to out\nto err\n", "out-truncated": False}),
        (True, {**OUT, **ERR}),
        (False, {}),
        (None, {}),
    ],
)
def test_what_is_captured(client: Client, mode: object, streams: dict[str, object]) -> None:
    how = {} if mode is None else {"capture_output": mode}
    status = run(client, "sh", "-c", "echo to out; echo to err >&2; exit 3", **how)
    assert status == {"exited": True, "exitcode": 3, **streams}


def test_an_unknown_mode_is_refused(client: Client) -> None:
    refusal = client.refusal("guest-exec", path="true", capture_output="both")
    assert refusal == "Parameter 'capture-output' does not accept value 'both'"


def test_a_stream_without_output_is_left_out(client: Client) -> None:
    status = run(client, "sh", "-c", "echo only >&2", capture_output=True)
    assert status == {
        "exited": True,
        "exitcode": 0,
        "err-data": b"only\n",
        "err-truncated": False,
    }


def test_streams_that_are_not_captured_go_nowhere(client: Client) -> None:
    script = "readlink /proc/self/fd/0 /proc/self/fd/2; readlink /proc/$$/fd/1"
    lines = run(client, "sh", "-c", script, capture_output="stdout")["out-data"].split()
    assert lines[:2] == [b"/dev/null", b"/dev/null"]
    assert lines[2].startswith(b"pipe:")


@pytest.mark.parametrize("code", [0, 1, 127, 255])
def test_an_exit_code_is_reported(client: Client, code: int) -> None:
    assert run(client, "sh", "-c", f"exit {code}") == {"exited": True, "exitcode": code}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGPIPE"])
def test_a_signal_is_reported(client: Client, name: str) -> None:
    script = f"kill -s {name.removeprefix('SIG')} $$; exit 5"
    status = run(client, "sh", "-c", f"echo before; {script}", capture_output=True)
    assert status == {
        "exited": True,
        "signal": signal.Signals[name].value,
        "out-data": b"before\n",
        "out-truncated": False,
    }


def test_a_running_program_has_no_output_yet(client: Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    pid = start_program(client, "sh", "-c", f"echo early; read x <{gate}", capture_output=True)
    with gate.open("w"):  # it has come so far
        assert client.call("guest-exec-status", pid=pid) == {"exited": False}
    assert final_status(client, pid)["out-data"] == b"early\n"


def test_the_status_is_given_once(client: Client) -> None:
    pid = start_program(client, "true")
    assert final_status(client, pid) == {"exited": True, "exitcode": 0}
    assert client.refusal("guest-exec-status", pid=pid) == f"PID {pid} does not exist"


@pytest.mark.parametrize("pid", [0, -1, 1, 2**63 - 1])
def test_an_unknown_pid_is_refused(client: Client, pid: int) -> None:
    assert client.refusal("guest-exec-status", pid=pid) == f"PID {pid} does not exist"


def test_a_child_outlives_its_connection(agent: AgentProcess) -> None:
    with agent.connect() as first:
        pid = start_program(first, "sh", "-c", "echo $$", capture_output=True)
    with agent.connect() as second:
        assert final_status(second, pid)["out-data"] == b"%d\n" % pid


def test_children_survive_the_end_of_the_agent(tmp_path: Path) -> None:
    gate, done = tmp_path / "gate", tmp_path / "done"
    os.mkfifo(gate)
    with listening(tmp_path) as agent:
        with agent.connect() as client:
            script = f"echo a; read x <{gate}; echo b && echo $x >{done}"
            start_program(client, "sh", "-c", script)
        assert agent.stop() == 0
    gate.write_text("alive\n")
    wait_for(lambda: done.exists() and done.read_text() == "alive\n", "the child goes on")


def test_the_environment_is_the_agents_own(client: Client) -> None:
    variables = output(client, "env").splitlines()
    assert "OF_THE_AGENT=yes" in variables
    assert {"HOME", "PATH", "USER", "LOGNAME"} <= {line.partition("=")[0] for line in variables}


def test_env_replaces_the_environment(client: Client) -> None:
    assert run_env(client, ["A=1", "B=x=y", "C="]) == {"A": "1", "B": "x=y", "C": ""}
    assert run_env(client, []) == {}


def run_env(client: Client, env: list[str]) -> dict[str, str]:
    status = run(client, "/usr/bin/env", env=env, capture_output=True)
    lines = status.get("out-data", b"").decode().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_a_name_is_searched_for_in_the_path_that_is_given(client: Client, tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        write_program(folder / "mine", f"#!/bin/sh\necho {name}\n")
    (tmp_path / "one" / "mine").chmod(0o644)

    def found(path: str) -> Any:
        return run(client, "mine", env=[f"PATH={path}"], capture_output=True)["out-data"]

    assert found(f"/nonexistent:{tmp_path}/two:{tmp_path}/one") == b"two\n"
    assert found(f"{tmp_path}/one:{tmp_path}/two") == b"two\n", "what cannot be run is passed over"
    assert client.refusal("guest-exec", path="mine", env=[f"PATH={tmp_path}/one"]) == (
        failure("mine", "Permission denied")
    )
    assert client.refusal("guest-exec", path="mine") == failure("mine", "No such file or directory")
    assert run(client, "true", env=["A=1"])["exitcode"] == 0, "there is a path by default"


@pytest.mark.parametrize("path", ["", ":/bin", "/bin:", "/bin::/usr/bin"])
def test_an_empty_entry_of_the_path_is_the_working_directory(tmp_path: Path, path: str) -> None:
    write_program(tmp_path / "mine", "#!/bin/sh\necho mine\n")
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    with listening(tmp_path, cwd=tmp_path, env=environment) as agent, agent.connect() as client:
        status = run(client, "mine", env=[f"PATH={path}"], capture_output=True)
    assert status["out-data"] == b"mine\n"


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def failure(path: str, reason: str) -> str:
    return f"Failed to execute child process “{path}” ({reason})"


def test_failures_to_start_name_the_reason(client: Client, tmp_path: Path) -> None:
    missing, folder, plain = tmp_path / "missing", tmp_path / "folder", tmp_path / "plain"
    folder.mkdir()
    plain.write_text("#!/bin/sh\n")
    no_interpreter = tmp_path / "script"
    write_program(no_interpreter, "#!/nonexistent\n")
    for path, reason in (
        (missing, "No such file or directory"),
        (folder, "Permission denied"),
        (plain, "Permission denied"),
        (plain / "below", "Not a directory"),
        (no_interpreter, "No such file or directory"),
        ("", "No such file or directory"),
    ):
        assert client.refusal("guest-exec", path=str(path)) == failure(str(path), reason)
    long = "x" * 200_000
    refusal = client.refusal("guest-exec", path="true", arg=[long])
    assert refusal == failure("true", "Argument list too long")


def test_failures_to_start_leave_nothing_behind(agent: AgentProcess, client: Client) -> None:
    before = agent.descriptors("pipe:", "anon_inode:[pidfd]")
    for _ in range(20):
        client.refusal("guest-exec", path="/nonexistent", input_data="aGk=", capture_output=True)
        run(client, "true", input_data="aGk=", capture_output=True)
    assert agent.descriptors("pipe:", "anon_inode:[pidfd]") == before


def test_a_script_without_a_first_line_is_run_by_sh(client: Client, tmp_path: Path) -> None:
    write_program(tmp_path / "script", "echo $0 $1; exit 4\n")
    status = run(client, str(tmp_path / "script"), "one", capture_output=True)
    assert status["out-data"].decode() == f"{tmp_path / 'script'} one\n"
    assert status["exitcode"] == 4


def test_arguments_arrive_as_they_are(client: Client) -> None:
    arguments = ["", " ", "a b", "*", "$HOME", "'\"\\", "\n", "ä€😀", "--", "-n"]
    status = run(client, "printf", "%s\\0", *arguments, capture_output=True)
    assert status["out-data"].decode().split("\0") == [*arguments, ""]


def test_a_nul_in_an_argument_is_passed_as_two_bytes(client: Client) -> None:
    status = run(client, "printf", "%s", "a\0b", capture_output=True)
    assert status["out-data"] == b"a\xc0\x80b"


def test_input_is_read_to_its_end(client: Client) -> None:
    data = random.Random(5).randbytes(10_000_000)
    text = base64.b64encode(data).decode()
    status = run(client, "sh", "-c", "cat | sha256sum", input_data=text, capture_output=True)
    assert status["out-data"].split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_input_and_output_of_many_megabytes_do_not_block_each_other(client: Client) -> None:
    data = random.Random(6).randbytes(10_000_000)
    text = base64.b64encode(data).decode()
    status = run(client, "cat", input_data=text, capture_output=True)
    assert status["out-data"] == data
    assert status["out-truncated"] is False


def test_empty_input_is_a_pipe_at_its_end(client: Client) -> None:
    script = "readlink /proc/self/fd/0; wc -c"
    status = run(client, "sh", "-c", script, input_data="", capture_output=True)
    assert status["out-data"].startswith(b"pipe:")
    assert status["out-data"].endswith(b"\n0\n")


def test_input_that_is_not_read_is_not_a_problem(client: Client) -> None:
    text = base64.b64encode(bytes(1_000_000)).decode()
    assert run(client, "true", input_data=text) == {"exited": True, "exitcode": 0}
    assert run(client, "sh", "-c", "exec <&-; exit 7", input_data=text)["exitcode"] == 7


def test_input_must_be_base64(client: Client) -> None:
    refusal = client.refusal("guest-exec", path="true", input_data="äöü")
    assert refusal == "Base64 data contains invalid characters"


def test_sixteen_mebibytes_of_each_stream_are_kept(client: Client) -> None:
    script = f"yes out | head -c {MAX_CAPTURE + 1}; yes err | head -c {MAX_CAPTURE} >&2"
    status = run(client, "sh", "-c", script, capture_output=True)
    assert MAX_CAPTURE == 16 * 1024 * 1024
    assert status["out-data"] == b"out\n" * (MAX_CAPTURE // 4)
    assert status["err-data"] == b"err\n" * (MAX_CAPTURE // 4)
    assert status["out-truncated"] is True
    assert status["err-truncated"] is False
    assert status["exitcode"] == 0
