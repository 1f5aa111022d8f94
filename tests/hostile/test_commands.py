"""qgactl against a hostile guest: it prints a line, exits with a status, and does nothing else.

For each scenario all commands run, on a pipe and, if they show text of the guest, on a terminal.
The commands are taken from qgactl's app, so new ones are included.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

import pytest
from qga_docs import interface

from tests.hostile.agent import HostileAgent
from tests.hostile.bounded import MB, Outcome, Victims
from tests.hostile.scenarios import (
    ABOUT_PROGRAMS,
    RAW_ESCAPES,
    SCENARIOS,
    WAITING,
    WHATEVER_THE_COMMAND,
)

ARGUMENTS: dict[str, list[list[str]]] = {
    "call": [["guest-get-osinfo"], ["guest-exec-status", "pid=1"], ["guest-shutdown"], ["acme"]],
    "cat": [["/file"]],
    "cp": [["guest:/file", "copy"], ["-r", "guest:/file", "copies"], ["home", "guest:/file"]],
    "doctor": [[]],
    "exec": [["--timeout", "0.5", "true"], ["--timeout", "0.5", "--env", "A=b", "true"]],
    "freeze": [["--", "true"], []],
    "grow": [["/"]],
    "identity": [["--machine-id"]],
    "passwd": [["--stdin", "root"]],
    "proxy": [["22"]],
    "shell": [["--", "true"]],
    "snapshot": [["copy", "--unfrozen", "text"], ["copy", "--external", "--crash-consistent"]],
    "ssh-keys": [["list", "root"]],
    "time": [[], ["--set"]],
    "top": [["--count", "1", "--interval", "0.1"]],
    "vcpus": [[], ["--offline", "1"]],
    "zabbix": [["--discover", "filesystems"]],
}
"""Arguments for commands that need some, or do more with them."""

ELSEWHERE = {
    "channel": "asks no guest",
    "exporter": "goes on until it is ended; what it asks is asked by read_metrics",
    "mcp": "goes on until its client ends it; tests/hostile/test_mcp.py is about it",
    "forward": "goes on until it is ended; what it asks is asked by proxy",
    "port": "has raw bytes of a port, not an agent",
}
PASSING = {"exec", "shell", "cat"}
"""These commands output bytes of the guest unchanged, which is their purpose."""

OWN_FORMAT = {"checkmk"}
"""What these print has the format of another program, also with --json."""

PATIENT = {"freeze", "thaw", "trim", "grow", "vcpus", "passwd", "resync", "identity", "snapshot"}
"""These wait for minutes on purpose."""

INSISTS = {"shell": "\r~."}
"""These may run for ever. On a terminal, the user ends them."""

FEW = ("os", "net", "top", "exec", "cat", "freeze", "call", "doctor")
"""One of each kind, for properties that do not depend on the command."""

PROGRAMS = ("exec", "shell", "cp", "call")

THOROUGH = {"escapes", "nan"}
"""These run in every way."""

WHOLE = THOROUGH | {"a_list_of_128_mib", "huge", "surrogates", "all_lists", "errors"}
"""These run with every command line. To save time, the others run with every second one."""

STATUSES = {0, 1, 3, 4, 124, 125, 129, 255}

FAULT = re.compile(r"Traceback|\b(?!AgentError)[A-Z]\w*(Error|Exception)\b")

COMMANDS = [program.name for program in interface.qgactl().commands]


@pytest.fixture(scope="module")
def victims() -> Iterator[Victims]:
    with Victims() as victims:
        yield victims


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileAgent]:
    with HostileAgent(tmp_path_factory.mktemp("guest") / "socket", SCENARIOS["honest"]) as agent:
        yield agent


def runs(scenario: str) -> list[list[str]]:
    """The command lines to try with a scenario."""
    left_out = {*ELSEWHERE, *(PATIENT if scenario in WAITING else ())}
    chosen: Sequence[str] = COMMANDS
    if scenario in ABOUT_PROGRAMS:
        chosen = PROGRAMS
    elif scenario in WAITING | WHATEVER_THE_COMMAND:
        chosen = FEW
    return [
        [command, *arguments]
        for command in chosen
        if command not in left_out
        for arguments in ARGUMENTS.get(command, [[]])
    ]


def check(outcome: Outcome, argv: list[str]) -> None:
    shown = outcome._replace(out=outcome.out[-2000:], err=outcome.err[-2000:])
    assert not outcome.killed, shown
    assert outcome.status in STATUSES, shown
    assert outcome.memory < 300 * MB, shown
    assert outcome.cpu < 20, shown
    assert outcome.disk < MB, shown
    assert len(outcome.out) < 64 * MB, shown
    assert len(outcome.err) < 2 * MB, shown
    assert not FAULT.search(outcome.err or outcome.out), shown
    if argv[0] not in PASSING:
        assert not any(each in outcome.out + outcome.err for each in RAW_ESCAPES), shown


def in_a_pipe(victims: Victims, address: str, argv: list[str], wait: float) -> None:
    if argv[0] in INSISTS:  # from a pipe nobody could leave
        on_a_terminal(victims, address, argv, wait)
        return
    check(victims.qgactl(address, *argv, stdin="text", wait=wait), argv)


def on_a_terminal(victims: Victims, address: str, argv: list[str], wait: float) -> None:
    insists = INSISTS.get(argv[0], "")
    outcome = victims.qgactl(
        address, *argv, stdin="text", wait=wait, terminal=True, insists=insists
    )
    check(outcome, argv)


def as_json(victims: Victims, address: str, argv: list[str], wait: float) -> None:
    outcome = victims.qgactl(address, "--json", *argv, stdin="text", wait=wait)
    if argv[0] == "shell":
        return
    check(outcome, argv)
    for line in outcome.out.splitlines() if argv[0] not in OWN_FORMAT else ():
        json.loads(line, parse_constant=pytest.fail)


WAYS = (in_a_pipe, on_a_terminal, as_json)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_command(victims: Victims, guest: HostileAgent, scenario: str) -> None:
    """Each one of the ways in turn, or all of them if the scenario concerns text of the guest."""
    guest.scenario = SCENARIOS[scenario]
    wait = 0.3 if scenario in WAITING else 0
    turn = list(SCENARIOS).index(scenario)
    tried = runs(scenario)
    if len(tried) > 20 and scenario not in WHOLE:
        tried = tried[turn % 2 :: 2]
    for number, argv in enumerate(tried, turn // 2):
        for way in WAYS if scenario in THOROUGH else (WAYS[number % len(WAYS)],):
            way(victims, guest.address, argv, wait)


def test_an_honest_guest_is_served(victims: Victims, guest: HostileAgent) -> None:
    """With honest replies everything succeeds, so the failures above are due to the scenarios."""
    guest.scenario = SCENARIOS["honest"]
    failed = {
        argv[0]
        for argv in runs("honest")
        if victims.qgactl(guest.address, *argv, stdin="text").status != 0
    }
    # One of call's commands is none, a shell takes a terminal, no script has run for cp, a reply
    # with all members that there are has an error for trim, and watch finds no data port.
    assert failed <= {"call", "cp", "shell", "trim", "watch"}


def test_every_command_is_tried() -> None:
    """A command with required arguments must be in ARGUMENTS."""
    assert set(ELSEWHERE) | set(ARGUMENTS) | {run[0] for run in runs("honest")} == set(COMMANDS)
