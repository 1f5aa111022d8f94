"""Large output of programs through libvirt, with both agents and the limits of libvirt 12.8.

The libvirt module is replaced by one that passes requests and replies on. If a reply is too large,
the call fails, or the agent is lost for ever, as with the real libvirt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qga.client import AgentTimeout, CommandError, GuestAgent, PlainProgram
from tests.integration.client_agents import AGENTS, running
from tests.unit.libvirt_stand_in import LibvirtError, installed

MB = 1 << 20
LONGEST_STRING, LARGEST_REPLY = 4 * MB, 10 * MB

NUMBERS = "i=0; while [ $i -lt {0} ]; do echo line $i; i=$((i + 1)); done"


class Passing:
    """libvirt with one domain. `cut_off` is true after a reply that was too large."""

    def __init__(self, agent: GuestAgent) -> None:
        self.agent = agent
        self.cut_off = False

    def __call__(self, request: dict[str, Any]) -> Any:
        command = request["execute"]
        if self.cut_off:
            raise LibvirtError("VIR_ERR_AGENT_UNRESPONSIVE", "Guest agent is not responding")
        try:
            value = self.agent.call(command, request.get("arguments"), max_reply=128 * MB)
        except CommandError as error:
            text = f"internal error: unable to execute QEMU agent command '{command}': {error.desc}"
            raise LibvirtError("VIR_ERR_INTERNAL_ERROR", text) from None
        if len(json.dumps(value)) > LARGEST_REPLY:
            self.cut_off = True
        if longest(value) > LONGEST_STRING or self.cut_off:
            raise LibvirtError("VIR_ERR_INTERNAL_ERROR", "cannot parse json: string too long")
        return value


def longest(value: Any) -> int:
    members = value.values() if isinstance(value, dict) else ()
    return max((len(each) for each in members if isinstance(each, str)), default=0)


@pytest.fixture(params=AGENTS)
def agent(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[GuestAgent]:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "guest"))
    (tmp_path / "guest").mkdir()
    with running(request.param, tmp_path) as address, GuestAgent(address, 60) as direct:
        libvirt = installed(monkeypatch)
        passing = Passing(direct)
        libvirt.agent = passing
        with GuestAgent("libvirt:web", 60) as agent:
            yield agent
        assert not passing.cut_off
    assert list((tmp_path / "guest").iterdir()) == []


def test_output_of_many_sizes(agent: GuestAgent) -> None:
    for size in (0, 5, 3 * MB, 5 * MB, 16 * MB):
        script = f"head -c {size} /dev/zero; echo done >&2; exit 3"
        result = agent.exec(["/bin/sh", "-c", script])
        assert (len(result.stdout), result.stderr, result.status) == (size, b"done\n", 3)
        assert not result.stdout_truncated
    assert agent.exec(["echo", "still there"]).stdout == b"still there\n"


def test_more_than_is_kept(agent: GuestAgent) -> None:
    script = "head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2"
    result = agent.exec(["/bin/sh", "-c", script])
    assert (len(result.stdout), len(result.stderr)) == (16 * MB, 16 * MB)
    assert (result.stdout_truncated, result.stderr_truncated) == (True, True)


def test_the_bytes_are_the_same(agent: GuestAgent, tmp_path: Path) -> None:
    content = bytes(range(256)) * 16384
    (tmp_path / "file").write_bytes(content)
    assert agent.exec(["cat", str(tmp_path / "file")]).stdout == content
    assert agent.exec(["cat"], input=b"\x00\n\xff" * 100).stdout == b"\x00\n\xff" * 100


def test_environment_and_merged_streams(agent: GuestAgent) -> None:
    assert agent.exec(["/usr/bin/env"], env={"A": "b c"}).stdout == b"A=b c\n"
    result = agent.exec(["/bin/sh", "-c", "echo 1; echo 2 >&2; echo 3"], capture="merged")
    assert (result.stdout, result.stderr) == (b"1\n2\n3\n", b"")


def test_a_program_of_qgactl_without_streams(agent: GuestAgent) -> None:
    with PlainProgram(agent, ["head", "-c", str(5 * MB), "/dev/zero"]) as program:
        size = 0
        while program.result is None:
            size += len(program.poll().stdout)
    assert (size, program.result.status) == (5 * MB, 0)


def test_one_that_takes_too_long(agent: GuestAgent) -> None:
    with pytest.raises(AgentTimeout, match="program took too long"):
        agent.exec(["sleep", "1"], timeout=0.2)


def test_a_large_slice_of_a_file(agent: GuestAgent, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * (9 * MB))
    handle = agent.file_open(str(tmp_path / "file"))
    assert len(agent.file_read(handle, 9 * MB).data) == 3 * MB
    agent.file_close(handle)
