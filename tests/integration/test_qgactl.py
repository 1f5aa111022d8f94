"""qgactl as a user runs it: its output, its error messages and its exit status."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from qga_docs import interface

from qga import INTERFACE_VERSION, __version__
from tests.integration.client_agents import AGENTS, running
from tests.integration.qgactl_process import QGACTL, Result, environment, qgactl

Run = Callable[..., Result]

PROGRAM = interface.qgactl()


@pytest.fixture(scope="module", params=AGENTS)
def address(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    with running(request.param, tmp_path_factory.mktemp("agent")) as address:
        yield address


@pytest.fixture
def run(address: str) -> Run:
    def run_with_agent(*arguments: str, stdin: str = "") -> Result:
        return qgactl(*arguments, address=address, stdin=stdin)

    return run_with_agent


def test_ping(run: Run, address: str) -> None:
    status, out, err = run("ping", "--count", "2")
    first, second, summary = out.splitlines()
    assert (status, err) == (0, "")
    assert first.startswith(f"{address}: answer 1 after ")
    assert second.startswith(f"{address}: answer 2 after ")
    assert re.fullmatch(r"min [\d.]+ ms, mean [\d.]+ ms, max [\d.]+ ms", summary)


def test_ping_for_programs(run: Run) -> None:
    status, out, _ = run("--json", "ping", "--count", "3")
    assert status == 0
    assert [time > 0 for time in json.loads(out)["round-trip-ms"]] == [True] * 3


def test_the_option_says_where_the_agent_is_too(address: str) -> None:
    assert qgactl("--connect", address, "ping")[0] == 0


def test_info_is_an_aligned_table(run: Run, address: str) -> None:
    status, out, err = run("info")
    title, head, _, *rows = out.splitlines()
    assert (status, err) == (0, "")
    assert title.startswith(f"{address}: agent ")
    assert (f"agent {INTERFACE_VERSION} (qga {__version__}), " in title) == ("qga-exec" in out)
    state, answers = head.index("State"), head.index("Replies on success")
    cells = [
        (row[:state].strip(), row[state:answers].strip(), row[answers:].strip()) for row in rows
    ]
    assert ("guest-ping", "enabled", "yes") in cells
    assert cells == sorted(cells)


def test_info_for_programs_is_the_reply(run: Run) -> None:
    status, out, _ = run("--json", "info")
    assert status == 0
    assert {"name": "guest-ping", "enabled": True, "success-response": True} in json.loads(out)[
        "supported_commands"
    ]
    assert ("qga" in json.loads(out)) == ("qga-exec" in out)


def test_call_prints_what_the_command_returns(run: Run) -> None:
    assert run("call", "guest-ping") == (0, "{}\n", "")
    assert run("call", "guest-sync", "id=5") == (0, "5\n", "")
    name = socket.gethostname()
    assert run("call", "guest-get-host-name")[1] == f'{{\n  "host-name": "{name}"\n}}\n'
    assert run("--json", "call", "guest-get-host-name")[1] == f'{{"host-name":"{name}"}}\n'


def test_call_with_arguments_of_all_kinds(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "123"
    path.write_text("content")
    handle = run("call", "guest-file-open", f"path={path}", "mode=r")[1].strip()
    seek = ("call", "guest-file-seek", f"handle={handle}", "offset=-3", "whence=end")
    assert json.loads(run("--json", *seek)[1]) == {"position": 4, "eof": False}
    assert run("call", "guest-file-close", f"handle={handle}")[0] == 0
    status, out, _ = run("--json", "call", "guest-exec", "path=echo", 'arg=["-l"]')
    assert (status, list(json.loads(out))) == (0, ["pid"])


def test_a_string_of_digits_needs_quotes(run: Run, address: str) -> None:
    assert run("call", "guest-file-open", "path=123")[0::2] == (
        1,
        f"qgactl: {address}: guest-file-open: "
        "Invalid parameter type for 'path', expected: string; its arguments: path, [mode]\n",
    )
    assert run("call", "guest-file-open", 'path="123"')[2] == (
        f"qgactl: {address}: guest-file-open: failed to open file '123' (mode: 'r'): "
        "No such file or directory\n"
    )


def test_an_error_of_the_guest(run: Run, address: str) -> None:
    assert run("call", "guest-nonsense") == (
        1,
        "",
        f"qgactl: {address}: guest-nonsense: The command guest-nonsense has not been found: "
        "this agent does not offer it; qgactl info lists what it offers\n",
    )
    assert run("call", "guest-x\x1b[31m")[2].count("\\x1b[31m") == 2


def test_a_slip_of_the_pen(run: Run) -> None:
    assert run("call", "guest-get-osinf")[2].endswith(
        "has not been found; did you mean guest-get-osinfo or guest-get-fsinfo?\n"
    )


def test_output_that_nobody_reads(address: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*QGACTL, "info"],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=environment(address),
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


def test_output_that_cannot_be_written(address: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*QGACTL, "info"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(address),
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b"qgactl: standard output: No space left on device\n"


def test_output_in_ascii(address: str, tmp_path: Path) -> None:
    name = str(tmp_path / "ä")
    done = subprocess.run(
        [*QGACTL, "call", "guest-exec", f"path={name}"],
        capture_output=True,
        env={**environment(address), "LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
        check=False,
    )
    assert done.returncode == 1
    assert b"\\xe4" in done.stderr


def test_nobody_there(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/socket"
    line = (
        f"qgactl: {address}: No such file or directory: is the guest running, and does it have "
        "a channel org.qemu.guest_agent.0 at this path? "
        "(qgactl list shows the guests of this host, qgactl channel how to add the channel)\n"
    )
    assert qgactl("ping", address=address) == (3, "", line)
    assert qgactl("exec", "--", "true", address=address) == (125, "", line)


@pytest.fixture
def mute(tmp_path: Path) -> Iterator[str]:
    """A socket whose other end never sends anything."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        yield f"unix:{tmp_path}/socket"


def test_no_answer(mute: str) -> None:
    assert qgactl("--timeout", "0.05", "ping", address=mute) == (
        4,
        "",
        f"qgactl: {mute}: guest-sync-delimited: timed out after 0.05 s: the agent "
        "did not respond at all: is the agent running in the guest "
        "(systemctl start qemu-guest-agent)? Or is the guest paused?\n",
    )
    assert qgactl("--timeout", "0.05", "exec", "--", "true", address=mute)[0] == 125


def test_an_interrupt_is_silent(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        listener.settimeout(60)
        process = subprocess.Popen(
            [*QGACTL, "--timeout", "inf", "ping"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(f"unix:{tmp_path}/socket"),
        )
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert (out, err.strip()) == (b"", b"")  # click before 8.2 ends the line of the ^C
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["-q"], "no command given (see qgactl --help)"),
        (["frob"], "no such command: frob (see qgactl --help)"),
        (
            ["ping"],
            "no guest given: qgactl ping GUEST; `qgactl list` shows the guests, QGA_CONNECT",
        ),
        (["--connect", "tcp:1", "ping"], "is not the address of an agent, expected: unix:PATH"),
        (
            ["--timeout", "nan", "ping"],
            "invalid value 'nan' for --timeout: use a duration greater than 0",
        ),
        (
            ["--timeout", "-1", "ping"],
            "invalid value '-1' for --timeout: use a duration greater than 0",
        ),
        (["call"], "missing argument"),
        (["call", "guest-x", "path"], "'path' is not KEY=VALUE (see qgactl call --help)"),
        (["call", "guest-x", "a=1", "a=2"], "'a' is given twice"),
        (["time", "@3"], "to set the clock to @3, add --set"),
        (["time", "--set", "soon"], "invalid time 'soon'; use e.g. 2026-11-22T18:30, @1795372200"),
        (["time", "--set", "@1e999"], "invalid time '@1e999'"),
        (
            ["trim", "--minimum", "4X"],
            "'4X' for --minimum: use a number of bytes, optionally followed by K",
        ),
        (["vcpus", "--online", "x"], "invalid processor 'x'; use a number or a range such as 3-5"),
        (["vcpus", "--online", "9-3"], "invalid range '9-3'; the lower number comes first"),
        (["vcpus", "--online", "1", "--offline", "0-2"], "cannot be taken online and offline"),
        (
            ["suspend", "nowhere"],
            "invalid value 'nowhere' for ram|disk|hybrid: use one of ram, disk",
        ),
        (["passwd", "root"], "there is no terminal to prompt on; pass the password"),
        (["passwd", "--stdin", "root"], "no password on standard input"),
        (["ssh-keys", "add", "root"], "add takes a FILE with public keys"),
        (["ssh-keys", "list", "root", "f"], "list takes no files"),
        (["ssh-keys", "add", "root", "/etc/hosts"], "line 1 of /etc/hosts is not an ssh public"),
        (
            ["ssh-keys", "add", "root", "/nonexistent"],
            "cannot read /nonexistent: No such file or directory (see",
        ),
        (["ssh-keys", "remove", "--reset", "root", "-"], "--reset can only be used with add"),
        (["exec"], "missing argument PROGRAM"),
        (["exec", "-l"], "no such option: -l (see qgactl exec --help)"),
        (["exec", "--env", "A", "--", "x"], "invalid value 'A' for --env: use NAME=VALUE"),
        (["exec", "--input", "/nonexistent", "--", "x"], "cannot read /nonexistent: No such file"),
        (["--json", "shell"], "shell has no output as JSON or YAML"),
        (["cp", "guest:/x"], "missing DESTINATION"),
        (["cp", "x", "y"], "either the destination or all sources must be in the guest"),
        (["cp", ":/x", "y", ":/z"], "either the destination or all sources must be in the guest"),
        (
            ["--data-port", "x", "--connect", "unix:/x", "cp", "x", ":/"],
            "invalid value 'x' for --data-port: use NAME=SOCKET",
        ),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_is_right(
    arguments: list[str], complaint: str
) -> None:
    status, out, err = qgactl(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("qgactl: ")
    assert complaint in err


@pytest.mark.parametrize("command", [[], ["ping"]])
def test_help_with_examples(command: list[str]) -> None:
    status, out, err = qgactl(*command, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(" ".join(["Usage: qgactl", *command]))
    assert "  Examples:\n    " in out


@pytest.mark.parametrize("program", PROGRAM.commands, ids=lambda program: program.name)
def test_every_command_has_examples_of_itself(program: interface.Program) -> None:
    _, mark, examples = program.help.partition("\b\nExamples:\n")
    assert mark
    assert f"qgactl {program.name}" in examples


def test_the_help_tells_the_exit_statuses() -> None:
    assert (
        "  Exit status:\n"
        "    0    success\n"
        "    1    the command failed in the guest\n"
        "    2    wrong usage\n"
        "    3    cannot connect\n"
        "    4    no answer in time\n"
    ) in qgactl("--help")[1]


@pytest.mark.parametrize("library", ["typer", "rich"])
def test_without_its_libraries_it_says_how_to_get_them(library: str) -> None:
    code = f"import sys; sys.modules['{library}'] = None; {QGACTL[-1]}"
    done = subprocess.run(
        [sys.executable, "-c", code, "ping"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"qgactl: needs the Python package '{library}': pip install 'qga[host]'\n"
    )
