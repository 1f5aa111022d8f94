"""qgactl exec and shell against real agents: ours, and the original, which has only guest-exec."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.agent_process import wait_for
from tests.integration.client_agents import AGENTS, running
from tests.integration.qgactl_process import ENDING, QGACTL, Result, environment, qgactl
from tests.integration.terminals import Terminal


@pytest.fixture(scope="module", params=AGENTS)
def address(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    with running(request.param, tmp_path_factory.mktemp("agent")) as address:
        yield address


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running("ours", tmp_path_factory.mktemp("agent")) as address:
        yield address


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running("original", tmp_path_factory.mktemp("agent")) as address:
        yield address


def started(
    address: str, *arguments: str, stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*QGACTL, *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(address),
    )


def terminal(address: str, *arguments: str, rows: int = 24, columns: int = 80) -> Terminal:
    env = {**environment(address), "TERM": "xterm-256color"}
    return Terminal([*QGACTL, *arguments], env, rows, columns)


def run(address: str, *arguments: str, stdin: str = "") -> Result:
    return qgactl("exec", *arguments, address=address, stdin=stdin)


def is_there(pid: int) -> bool:
    """Whether a process is running. A zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pids: list[int]) -> None:
    wait_for(lambda: not any(map(is_there, pids)), f"processes {pids} to end")


def pids_in(path: Path, count: int) -> list[int]:
    """Wait until all processes have written their pids to a file, and return those."""

    def noted() -> list[int]:
        lines = path.read_text().split() if path.exists() else []
        return list(map(int, lines)) if len(lines) == count else []

    return wait_for(noted, f"{count} processes in {path}")


# A program with a child: both note their process ids.
FAMILY = "echo $$ >>{0}; sh -c 'echo $$ >>{0}; exec sleep 1000'; :"

# The same, with a child in the background, which an interrupt does not reach.
BACKGROUND = "echo $$ >>{0}; sleep 1000 & echo $! >>{0}; wait"


def test_exec_is_the_program(address: str) -> None:
    script = "echo out; echo err >&2; exit 7"
    assert run(address, "--", "sh", "-c", script) == (7, "out\n", "err\n")
    assert run(address, "--", "ls", "-d", "--", "/") == (0, "/\n", "")
    assert run(address, "--", "sh", "-c", "kill -9 $$") == (137, "", "")


def test_input_is_ours_or_a_file(address: str, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_text("of a file")
    assert run(address, "--", "tr", "a-z", "A-Z", stdin="ours") == (0, "OURS", "")
    assert run(address, "--input", str(path), "--", "cat", stdin="ours") == (0, "of a file", "")
    assert run(address, "--", "cat") == (0, "", "")


def test_much_input_and_output_pass_whole(address: str, tmp_path: Path) -> None:
    text = "".join(f"line {number}\n" for number in range(200_000))
    assert run(address, "--", "cat", stdin=text) == (0, text, "")


def test_a_program_need_not_read_its_input(address: str) -> None:
    assert run(address, "--", "echo", "done", stdin="x" * 1_000_000) == (0, "done\n", "")


def test_env_adds_to_the_environment(address: str) -> None:
    status, out, _ = run(address, "--env", "A=b=c", "--env", "D=", "--", "env")
    variables = dict(line.split("=", 1) for line in out.splitlines())
    assert (status, variables["A"], variables["D"]) == (0, "b=c", "")
    assert variables["PATH"]


def test_a_clean_environment(address: str) -> None:
    options = ("--clean-env", "--env", "A=b=c", "--env", "D=")
    status, out, _ = run(address, *options, "--", "/usr/bin/env")
    assert (status, sorted(out.split())) == (0, ["A=b=c", "D="])
    assert run(address, "--clean-env", "--", "/usr/bin/env") == (0, "", "")


def test_exec_for_programs(address: str) -> None:
    status, out, err = run(address, "--json", "--", "sh", "-c", "echo hi; exit 3")
    assert (status, err) == (3, "")
    assert json.loads(out) == {
        "exitcode": 3,
        "out-data": "aGkK",
        "out-truncated": False,
        "err-data": "",
        "err-truncated": False,
    }


def test_exec_of_what_is_not_there(address: str) -> None:
    status, out, err = run(address, "--", "/nonexistent")
    assert (status, out) == (125, "")
    assert err.startswith(f"qgactl: {address}: ")
    assert "No such file or directory" in err


def test_a_program_that_takes_too_long_is_ended(address: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = FAMILY.format(pids)
    ended = (124, "", f"qgactl: {address}: the program was terminated after 2 s\n")
    assert run(address, "--timeout", "2", "--", "sh", "-c", script) == ended
    wait_until_gone(pids_in(pids, 2))


def test_one_that_does_not_listen_is_killed(address: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; echo $$ >{pids}; while :; do sleep 0.1; done"
    assert run(address, "--timeout", "2", "--", "sh", "-c", script)[0] == 124
    wait_until_gone(pids_in(pids, 1))


def test_an_interrupt_goes_to_the_program(address: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap 'echo caught; exit 9' INT; echo $$ >{pids}; while :; do sleep 0.1; done"
    process = started(address, "exec", "--", "sh", "-c", script)
    noted = pids_in(pids, 1)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == (b"caught\n", b"")
    assert process.returncode == 9
    wait_until_gone(noted)


@pytest.mark.parametrize("number", ENDING)
def test_signals_leave_nothing_behind(address: str, tmp_path: Path, number: int) -> None:
    pids = tmp_path / "pids"
    process = started(address, "exec", "--", "sh", "-c", FAMILY.format(pids))
    noted = pids_in(pids, 2)
    process.send_signal(number)
    assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == 128 + number
    wait_until_gone(noted)


def test_a_second_interrupt_kills(address: str, tmp_path: Path) -> None:
    pids, deaf = tmp_path / "pids", tmp_path / "deaf"
    script = f"trap 'touch {deaf}' INT; echo $$ >{pids}; while :; do sleep 0.1; done"
    process = started(address, "exec", "--", "sh", "-c", script)
    noted = pids_in(pids, 1)
    process.send_signal(signal.SIGINT)
    wait_for(deaf.exists, "the program to be interrupted")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    wait_until_gone(noted)


# What only an agent with qga-exec can do.


def test_output_appears_while_the_program_runs(ours: str, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = started(ours, "exec", "--", "sh", "-c", f"echo first; cat {fifo}")
    assert process.stdout
    assert process.stdout.readline() == b"first\n"
    assert process.poll() is None
    fifo.write_text("second\n")
    assert process.communicate(timeout=60) == (b"second\n", b"")


def test_input_is_passed_on_as_it_comes(ours: str) -> None:
    process = started(ours, "exec", "--", "cat", stdin=subprocess.PIPE)
    assert process.stdin and process.stdout
    for line in (b"one\n", b"two\n"):
        process.stdin.write(line)
        process.stdin.flush()
        assert process.stdout.readline() == line
    assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == 0


def test_output_that_nobody_reads_ends_the_program(ours: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    process = started(ours, "exec", "--", "sh", "-c", f"echo $$ >{pids}; exec yes")
    assert process.stdout
    process.stdout.read(2)
    process.stdout.close()
    assert process.wait(60) == 128 + signal.SIGPIPE
    wait_until_gone(pids_in(pids, 1))
    assert process.stderr
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_terminal_of_the_right_size(ours: str) -> None:
    with terminal(ours, "exec", "-t", "--", "stty", "size", rows=33, columns=111) as screen:
        screen.expect("33 111\r\n")
        assert screen.wait() == 0
        assert screen.is_as_before


def test_a_shell(ours: str) -> None:
    with terminal(ours, "shell", "--", "sh", rows=30, columns=90) as screen:
        screen.type("PS1='ready> '; echo $TERM $((6 * 7))\n")
        screen.expect("xterm-256color 42\r\n")
        screen.expect("ready> ")
        screen.type("stty size\n")
        screen.expect("30 90\r\n")
        screen.expect("ready> ")
        screen.type("tr a-z A-Z\nbegun\n")
        screen.expect("BEGUN\r\n")
        screen.type("\x03")
        screen.expect("ready> ")
        screen.type("exit 5\n")
        assert screen.wait() == 5
        assert screen.is_as_before


# Notes its process id, and the size of its terminal whenever that changes.
WATCHER = "trap 'stty size' WINCH; echo $$ >{}; echo ready; while :; do sleep 0.1; done"


def test_a_terminal_that_changes_its_size_and_is_left(ours: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with terminal(ours, "shell", "--", "sh", "-c", WATCHER.format(pids)) as screen:
        screen.expect("ready")
        screen.resize(40, 120)
        screen.expect("40 120\r\n")
        screen.type("\r~.")
        assert screen.wait() == 128 + signal.SIGHUP
        assert screen.is_as_before
    wait_until_gone(pids_in(pids, 1))


def test_a_shell_of_whoever_the_agent_runs_as(ours: str) -> None:
    with terminal(ours, "shell") as screen:
        screen.type("echo $((6 * 7)) $PWD; exit\n")
        screen.expect(f"42 {Path.home()}\r\n")
        assert screen.wait() == 0


@pytest.mark.parametrize("agent", ["ours", "original"])
def test_a_shell_without_a_terminal_reads_its_commands(
    agent: str, request: pytest.FixtureRequest
) -> None:
    """As from cron, but with /dev/null it would exit at once."""
    address = request.getfixturevalue(agent)
    script = "echo $((6 * 7)); exit 3\n"
    assert qgactl("shell", address=address, stdin=script)[:2] == (3, "42\n")
    assert qgactl("shell", address=address, stdin="")[:2] == (0, "")


def test_the_original_kills_what_is_in_the_background_too(original: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    process = started(original, "exec", "--", "sh", "-c", BACKGROUND.format(pids))
    noted = pids_in(pids, 2)
    process.send_signal(signal.SIGINT)
    wait_for(lambda: not is_there(noted[0]), "the program to be interrupted")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    wait_until_gone(noted)


def test_the_original_has_no_terminal(original: str) -> None:
    status, out, err = qgactl("exec", "-t", "--", "sh", address=original)
    assert (status, out) == (125, "")
    assert err == (
        f"qgactl: {original}: a terminal needs the qga-exec command, which this "
        "guest's agent lacks or has disabled; use `qgactl exec` without -t instead\n"
    )


def test_too_much_input_for_the_original(original: str, tmp_path: Path) -> None:
    path = tmp_path / "input"
    with path.open("wb") as file:
        file.truncate(50 * 1024 * 1024)
    assert run(original, "--input", str(path), "--", "cat") == (
        125,
        "",
        "qgactl: guest-exec takes at most 49545213 bytes of input\n",
    )


NO_CGROUP = "this guest has no cgroup for the program: limits apply to each process"
ULIMITS = "ulimit -t; ulimit -n; ulimit -f"
LIMITS = ("--cpu-seconds", "7", "--open-files", "99", "--file-size", "1M", "--pids", "1000")


def test_limits_reach_the_program(ours: str) -> None:
    status, out, err = run(ours, *LIMITS, "--", "sh", "-c", ULIMITS)
    assert (status, out.split()) == (0, ["7", "99", "2048"])
    assert err in ("", f"qgactl: {ours}: {NO_CGROUP}\n")


def test_what_has_ended_a_program_is_reported(ours: str) -> None:
    status, out, err = run(ours, "--output-size", "1K", "--", "yes")
    assert (status, len(out)) == (128 + 9, 1024)
    assert f"qgactl: {ours}: the program was ended: output" in err.splitlines()
    status, out, _ = run(ours, "--json", "--output-size", "1", "--", "yes")
    assert json.loads(out)["ended-by"] == "output"
    assert json.loads(out)["confinement"] in ("cgroup", "rlimits")


def test_limits_without_qga_exec_are_an_error(original: str) -> None:
    status, out, err = run(original, "--memory", "1G", "--", "echo", "x")
    assert (status, out) == (125, "")
    assert "limits require qga 0.2 or later in the guest" in err


@pytest.mark.parametrize(
    ("option", "value", "advice"),
    [
        ("--memory", "much", "use a number of bytes"),
        ("--cpus", "0", "use a number of processors of at least 0.01, such as 0.5"),
        ("--cpus", "nan", "use a number of processors"),
        ("--pids", "0", "0"),
    ],
)
def test_limits_that_are_none(ours: str, option: str, value: str, advice: str) -> None:
    status, out, err = run(ours, option, value, "--", "true")
    assert (status, out) == (2, "")
    assert option in err
    assert advice in err
