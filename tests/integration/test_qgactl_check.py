"""qgactl check against real agents: ours, and the original, which reports less."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.client_agents import AGENTS, running
from tests.integration.qgactl_process import QGACTL, Result, environment, qgactl

FIGURE = re.compile(r"'[^']+'=[0-9.e-]+[%s]?(;[0-9.]*){0,2}")


@pytest.fixture(scope="module", params=AGENTS)
def address(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    with running(request.param, tmp_path_factory.mktemp("agent")) as address:
        yield address


def check(address: str, *options: str) -> Result:
    return qgactl("check", *options, address=address)


def test_all_is_well(address: str) -> None:
    status, out, err = check(address, "--disk", "/=99.9%:100%")
    assert (status, err, out.count("\n")) == (0, "", 1)
    text, _, figures = out.rstrip().partition(" | ")
    assert text.startswith(f"OK - {address}: / ")
    names = [match[0].split("=")[0] for match in FIGURE.finditer(figures)]
    assert names == ["'/'", "'answer'"]
    assert FIGURE.sub("", figures).strip() == ""


def test_the_worst_decides(address: str) -> None:
    warned = ["--disk", "/=0%:100%"]
    status, out, _ = check(address, *warned)
    assert (status, out.split()[0]) == (1, "WARNING")
    status, out, _ = check(address, *warned, "--disk", "/nowhere=90%")
    assert (status, out.split()[0]) == (2, "CRITICAL")
    assert "no filesystem is mounted at /nowhere; / " in out


def test_what_not_every_agent_reports(address: str, request: pytest.FixtureRequest) -> None:
    status, out, _ = check(address, "--memory", "100%", "--load", "9999", "--json")
    found = {each["name"]: each for each in json.loads(out)["checks"]}
    if "original" in request.node.name:  # of 7.2
        assert status == 3
        assert found["memory"]["text"] == "the agent does not report memory"
        assert found["load"]["state"] == "UNKNOWN"
    else:
        assert (status, 0 < found["memory"]["value"] < 100) == (0, True)
        assert (found["load"]["state"], found["load"]["critical"]) == ("OK", 9999)


def test_an_agent_that_does_not_answer(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/none"
    assert check(address)[0] == 3
    status, out, err = check(address, "--agent")
    assert (status, err, out.count("\n")) == (2, "", 1)
    assert out.startswith("CRITICAL - ") and "No such file" in out


@pytest.mark.parametrize("options", [["--disk", "/"], ["--load", "x"], ["--lod", "3"], ["a", "b"]])
def test_wrong_usage_is_unknown(options: list[str], tmp_path: Path) -> None:
    status, out, err = check(f"unix:{tmp_path}/none", *options)
    assert (status, err, out.count("\n")) == (3, "", 1)
    assert out.startswith("UNKNOWN - ")


@pytest.mark.parametrize("options", [["--timeout", "a|b"], ["--connect=ping", "--nosuch"]])
def test_wrong_options_before_the_command_are_unknown(options: list[str]) -> None:
    """No bar: figures would begin there."""
    status, out, err = qgactl(*options, "check", "web")
    assert (status, err, out.count("\n")) == (3, "", 1)
    assert out.startswith("UNKNOWN - ") and "|" not in out


@pytest.mark.parametrize("options", [["--disk", "/"], []])
def test_what_cannot_be_written_is_unknown(options: list[str], tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*QGACTL, "check", *options],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(f"unix:{tmp_path}/none"),
            check=False,
        )
    assert (done.returncode, done.stderr) == (
        3,
        b"qgactl: standard output: No space left on device\n",
    )
