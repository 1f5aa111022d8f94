"""qgactl cp without guest-exec: what guest-file-* can do, and what is lost."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.client_agents import running
from tests.integration.qgactl_process import Result, qgactl

DATA = bytes(range(256)) * 5000

RULES = "[exec]\nallow=/usr/bin/true\n"

# An agent, and what keeps it from running a shell.
WAYS = {
    "original": ("original", ["-b", "guest-exec"], ""),
    "ours": ("ours", ["-b", "guest-exec"], ""),
    "ours, by its rules": ("ours", [], RULES),
}


@pytest.fixture(scope="module", params=list(WAYS))
def address(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    name, options, config = WAYS[request.param]
    folder = tmp_path_factory.mktemp("agent")
    (folder / "config").write_text(config)
    extra = [*options, *(["-c", str(folder / "config")] if config else [])]
    with running(name, folder, extra) as address:
        yield address


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    path.chmod(0o644)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


def cp(address: str, *arguments: object) -> Result:
    return qgactl("cp", *map(str, arguments), address=address)


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_out_of_the_guest(address: str, source: Path, target: Path) -> None:
    status, out, err = cp(address, f":{source}", target)
    assert (status, out, err.count("\n")) == (0, "", 1)
    assert "this guest's agent runs no programs (guest-exec): " in err
    assert "permissions are unknown" in err
    assert os.listdir(target) == ["source"]
    assert (target / "source").read_bytes() == DATA
    assert permissions(target / "source") == 0o600


def test_into_the_guest(address: str, source: Path, target: Path) -> None:
    (target / "there").write_bytes(b"longer" * 1_000_000)
    (target / "there").chmod(0o600)
    for name in ("", "new", "there"):
        status, out, err = cp(address, source, f":{target}/{name}")
        assert (status, out, err.count("\n")) == (0, "", 1)
        assert "files are written in place" in err
    assert sorted(os.listdir(target)) == ["new", "source", "there"]
    assert all((target / name).read_bytes() == DATA for name in os.listdir(target))
    assert permissions(target / "there") == 0o600


def test_what_takes_programs(address: str, source: Path, target: Path, tmp_path: Path) -> None:
    for sides in ((target, f":{tmp_path}/new"), (f":{target}", tmp_path / "new")):
        status, _, err = cp(address, "-r", *sides)
        assert status == 1
        assert "directory requires guest-exec and a shell" in err
        assert not (tmp_path / "new").exists()
    status, _, err = cp(address, "--resume", source, f":{target}")
    assert status == 1
    assert "cannot resume" in err
    assert os.listdir(target) == []


def test_what_is_not_there(address: str, source: Path, target: Path) -> None:
    assert cp(address, f":{target}/none", target)[2].endswith("none: no such file or directory\n")
    assert cp(address, source, f":{target}/none/")[0] == 1
    status, _, err = cp(address, source, f":{target}/none/file")
    assert status == 1
    assert "No such file or directory" in err


def test_a_file_of_proc(address: str, target: Path) -> None:
    assert cp(address, ":/proc/version", target)[0] == 0
    assert (target / "version").read_bytes() == Path("/proc/version").read_bytes()


def test_resuming_out_of_the_guest(address: str, source: Path, target: Path) -> None:
    (target / ".source.qga-part").write_bytes(DATA[:1000])
    assert cp(address, "--resume", f":{source}", target)[0] == 0
    assert (target / "source").read_bytes() == DATA
    assert os.listdir(target) == ["source"]
