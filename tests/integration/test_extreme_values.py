"""Every command with every integer at its extremes: errors are QGA's own, never Python's.

The values come from the signatures, so new commands are included. The agent can do no harm: it runs
as nobody in separate namespaces, where it can read everything and change nothing.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import math
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from qga import Base64, QgaError
from qga.plugin import discovery, schema
from qga.plugin.entry import INJECTED
from qga.plugin.registry import commands_of
from tests.integration.agent_process import Client, listening, request

clock: Any = import_module("qga.commands.time")
filesystems: Any = import_module("qga.commands.filesystems")
mounts: Any = import_module("qga.commands._mounts")

EXTREMES = (-(2**63), -(2**31), -1, 0, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1)

END_OF_2069 = 3_155_760_000 * 10**9

MANY = 1500

NOBODY = 65534
KEPT = "-all,+dac_read_search"
HARMLESS = (
    *("unshare", "--mount", "--net", "--ipc", "--uts"),
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"),
    *(f"--inh-caps={KEPT}", f"--ambient-caps={KEPT}", f"--bounding-set={KEPT}"),
)

OPTIONAL = {"tty": True, "eof": True}
"""Arguments without which other arguments are ignored."""

SAMPLES: dict[Any, Any] = {
    str: "none",
    Base64: "YQ==",
    bool: True,
    int: 1,
    schema.UInt64: 1,
    float: 1,
}


def is_integer(annotation: Any) -> bool:
    return annotation in (int, float) or annotation == schema.UInt64


def extremes(annotation: Any) -> Iterator[Any]:
    """Values of a type that hold an extreme integer at any depth."""
    if is_integer(annotation):
        yield from EXTREMES
    elif get_origin(annotation) is list:
        yield from ([item] for item in extremes(get_args(annotation)[0]))
    elif schema.is_struct(annotation):
        for name, (kind, _) in schema.members(annotation).items():
            yield from ({**sample(annotation), name: value} for value in extremes(kind))
    elif get_origin(annotation) is not Literal:
        for part in get_args(annotation):
            yield from extremes(part)


def sample(annotation: Any) -> Any:
    """A valid value of a type."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)[0]
    if get_origin(annotation) is list:
        return [sample(get_args(annotation)[0])]
    if schema.is_struct(annotation):
        members = schema.members(annotation).items()
        return {name: sample(kind) for name, (kind, required) in members if required}
    return SAMPLES[annotation] if annotation in SAMPLES else sample(get_args(annotation)[0])


def requests(known: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every command that takes integers, with combinations of them.

    known: values by the names of arguments. Integers among them are tried as well as extremes.
    """
    for group in discovery.discover(None, pytest.fail):
        for name, attribute, _ in commands_of(group):
            arguments = schema.signature(getattr(group, attribute), INJECTED).arguments
            tried = {each.name: list(extremes(each.annotation)) for each in arguments}
            tried = {argument: values for argument, values in tried.items() if values}
            if not tried:
                continue
            given = {
                each.name: known.get(each.name, sample(each.annotation))
                for each in arguments
                if each.required or each.name in OPTIONAL
            }
            for argument in tried.keys() & known.keys():
                tried[argument].append(known[argument])
            for values in combinations(tried):
                yield name, {**given, **values}


def combinations(tried: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """All combinations; if they are very many, one argument at a time."""
    if math.prod(map(len, tried.values())) <= MANY:
        yield from (dict(zip(tried, values)) for values in itertools.product(*tried.values()))
    else:
        yield from ({name: value} for name, values in tried.items() for value in values)


def test_what_is_tried() -> None:
    tried = {name for name, _ in requests({})}
    assert {"guest-fstrim", "guest-set-time", "guest-set-vcpus", "guest-file-seek"} <= tried
    members = [given for name, given in requests({}) if name == "guest-set-memory-blocks"]
    assert {"mem-blks": [{"phys-index": 2**64 - 1, "online": True}]} in members
    places = [given["whence"] for name, given in requests({}) if name == "guest-file-seek"]
    assert set(places) == set(EXTREMES)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/dev/zero", "/proc/self/mem", "/proc/self/status"]
)
def test_an_error_in_words(tmp_path: Path, path: str) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    with listening(tmp_path, launcher=HARMLESS) as agent, agent.connect() as client:
        handle = client.call("guest-file-open", path=path)
        pid = client.call("qga-exec", path="/bin/cat", tty=True)["pid"]
        known = {**OPTIONAL, "path": path, "handle": handle, "pid": pid, "buf-b64": "YQ=="}
        tried = list(requests(known))
        assert len(tried) > 2000
        for name, given in tried:
            if name == "qga-exec":
                given["path"] = "/bin/true"
            if name != "qga-exec-signal" or given["pid"] != pid:
                told = ask(client, name, given)
                assert "Error" not in told, (name, given)
                assert "exception" not in told, (name, given)
        assert "Traceback" not in agent.log
        assert "fault" not in agent.log


def ask(client: Client, name: str, arguments: dict[str, Any]) -> str:
    client.send(request(name, **arguments))
    reply = json.loads(client.line().lstrip(b"\xff"))
    return str(reply["error"]["desc"]) if "error" in reply else ""


@pytest.mark.parametrize(("minimum", "asked"), [(-1, 2**64 - 1), (0, 0), (2**63 - 1, 2**63 - 1)])
def test_a_trim_of_any_minimum(monkeypatch: pytest.MonkeyPatch, minimum: int, asked: int) -> None:
    """A negative number is the unsigned one of the same bits, as in the original."""

    def trim(_fd: int, _request: int, argument: bytes) -> bytes:
        assert int.from_bytes(argument[16:], "little") == asked
        return argument

    monkeypatch.setattr(fcntl, "ioctl", trim)
    result = filesystems._trim(root(), minimum)
    assert "error" not in result
    assert result["minimum"] == minimum


def root() -> Any:
    number = os.stat("/").st_dev
    return mounts.Mount((os.major(number), os.minor(number)), ["/"], "ext4", "/dev/root")


@pytest.mark.parametrize(
    ("time", "refused"),
    [
        *(
            (time, "Invalid time")
            for time in (-(2**63), -(2**31), -(10**9), END_OF_2069, 2**63 - 1)
        ),
        *(
            (time, "Failed to set time to guest: Invalid argument")
            for time in (-(10**9) + 1, -1000)
        ),
    ],
)
def test_a_time_that_qemus_agent_refuses(
    monkeypatch: pytest.MonkeyPatch, time: int, refused: str
) -> None:
    monkeypatch.setattr(clock.time, "clock_settime_ns", like_the_kernel)
    with pytest.raises(QgaError) as caught:
        clock.Time(None).guest_set_time(time)
    assert caught.value.desc == refused


@pytest.mark.parametrize("time", [0, 1, 2**31, 2**32, 2**61, END_OF_2069 - 1])
def test_a_time_for_both_clocks(monkeypatch: pytest.MonkeyPatch, time: int) -> None:
    written: list[bytes] = []

    def write(_fd: int, _request: int, data: bytes) -> bytes:
        written.append(data)
        return data

    monkeypatch.setattr(clock.time, "clock_settime_ns", like_the_kernel)
    monkeypatch.setattr(clock, "_RTC", "/dev/null")
    monkeypatch.setattr(fcntl, "ioctl", write)
    clock.Time(None).guest_set_time(time)
    assert len(written) == 1


def like_the_kernel(_clock: int, nanoseconds: int) -> None:
    """A replacement for clock_settime(2)."""
    if nanoseconds < 0:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
