"""File names are UTF-8 for the host and bytes for the kernel in any locale, and children get the
locale of the administrator."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.guest.image import CHECKOUT
from tests.integration.agent_process import COMMAND, AgentProcess, Client, listening, wait_for
from tests.integration.guest_program import output, run
from tests.integration.locales import GERMAN, make_german

SPEAKING = (
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "LC_MESSAGES",
    "PYTHONUTF8",
    "PYTHONIOENCODING",
)
LOCALES: dict[str, dict[str, str]] = {
    "latin-1": {"LANG": GERMAN},
    "latin-1 for characters": {"LANG": "C.UTF-8", "LC_CTYPE": GERMAN},
    "latin-1 for all": {"LC_ALL": GERMAN},
    "no utf-8 mode": {"LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "C": {"LANG": "C"},
    "C for all": {"LC_ALL": "C"},
    "POSIX": {"LANG": "POSIX"},
    "none": {},
    "not installed": {"LANG": "tlh_QO.KOI8-R"},
    "UTF-8": {"LANG": "C.UTF-8"},
    "UTF-8 for characters": {"LANG": "C", "LC_CTYPE": "C.UTF-8"},
}
NAME = "größe €😀"


@pytest.fixture(scope="module")
def german(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("locales")
    make_german(folder)
    return folder


def environment(german: Path, locale: dict[str, str]) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if name not in SPEAKING}
    return {**others, "LOCPATH": str(german), **locale}


@pytest.fixture(scope="module", params=LOCALES)
def locale(request: pytest.FixtureRequest) -> dict[str, str]:
    return LOCALES[request.param]


@pytest.fixture(scope="module")
def allowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files") / NAME
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def agent(
    tmp_path_factory: pytest.TempPathFactory, german: Path, locale: dict[str, str], allowed: Path
) -> Iterator[AgentProcess]:
    config = f"[files]\nread={allowed}/**\nwrite={allowed}/**\n"
    folder = tmp_path_factory.mktemp("agent")
    with listening(folder, config=config, env=environment(german, locale)) as agent:
        yield agent


def test_a_rule_about_a_name_beyond_ascii(client: Client, allowed: Path) -> None:
    path = allowed / f"ö{NAME}"
    handle = client.call("guest-file-open", path=str(path), mode="w")
    client.call("guest-file-write", handle=handle, buf_b64="aGk=")
    client.call("guest-file-close", handle=handle)
    assert path.read_bytes() == b"hi"
    assert sorted(os.listdir(os.fsencode(allowed))) == [path.name.encode()]
    path.unlink()


def test_errors_are_as_always(client: Client, allowed: Path) -> None:
    path = allowed / "fehlt-ß"
    assert client.refusal("guest-file-open", path=str(path)) == (
        f"failed to open file '{path}' (mode: 'r'): No such file or directory"
    )
    assert client.refusal("qga-exec", path=f"/{NAME}") == (
        f"failed to start '/{NAME}': No such file or directory"
    )
    assert f"\u201c/{NAME}\u201d (No such file or directory)" in client.refusal(
        "guest-exec", path=f"/{NAME}"
    )


def test_arguments_and_output_are_utf8(client: Client) -> None:
    status = run(client, "printf", "%s", NAME, capture_output=True)
    assert status["out-data"] == NAME.encode()
    pid = client.call("qga-exec", path="printf", arg=["%s", NAME])["pid"]

    def end() -> Any:
        seen = client.call("qga-exec-read", pid=pid)
        return seen if seen["exited"] else None

    assert base64.b64decode(wait_for(end, "the end")["out-data"]) == NAME.encode()


def test_a_child_has_the_administrators_locale(client: Client, locale: dict[str, str]) -> None:
    lines = output(client, "env").splitlines()
    found = dict(line.split("=", 1) for line in lines if line.split("=")[0] in SPEAKING)
    assert found == {name: value for name, value in locale.items() if name in SPEAKING}


def test_mount_points_are_read_as_utf8(german: Path, locale: dict[str, str]) -> None:
    """The mount points that guest-fsfreeze-freeze-list compares; nothing is frozen here."""
    path = f"/mnt/{NAME.replace(' ', '')}".encode()
    line = b"30 1 8:1 / %s rw - ext4 /dev/sda1 rw\n" % path
    script = f"""
from qga.service.utf8 import use_utf8
use_utf8()
import os
from qga.commands import _mounts
(mount,) = _mounts.parse({line!r})
os.write(1, mount.paths[0].encode("utf-8", "surrogateescape"))
"""
    argv = [sys.executable, "-c", script]
    done = subprocess.run(
        argv, env=environment(german, locale), capture_output=True, check=True, cwd=CHECKOUT
    )
    assert done.stdout == path


def test_what_is_printed_and_complained_of_is_utf8(
    tmp_path: Path, german: Path, locale: dict[str, str]
) -> None:
    config = tmp_path / f"{NAME}.conf"
    config.write_text(f"[general]\npath=/{NAME}\n")
    argv = [*COMMAND, "-c", str(config), "--dump-conf"]
    shown = subprocess.run(
        argv, env=environment(german, locale), capture_output=True, check=True, timeout=30
    )
    assert f"path=/{NAME}".encode() in shown.stdout
    argv = [*COMMAND, "-c", f"{config}.fehlt", "--dump-conf"]
    refused = subprocess.run(
        argv, env=environment(german, locale), capture_output=True, check=False, timeout=30
    )
    assert f"{NAME}.conf.fehlt".encode() in refused.stderr
    assert refused.returncode == 1


def test_the_packages_start_the_agent_in_utf8_mode_at_once() -> None:
    """Without starting Python again, which would double the time."""
    first, *_ = (CHECKOUT / "packaging/qemu-ga").read_text().splitlines()
    interpreter, options = first.removeprefix("#!").split(" ")
    script = "import sys; print(sys.flags.utf8_mode, sys.flags.isolated, sys.flags.no_site)"
    argv = [interpreter, options, "-c", script]
    done = subprocess.run(
        argv, env={"LC_ALL": "C.UTF-8"}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 1 1\n"
