"""A refusal looks the same to the host whether the file exists or not, and whatever it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from stat import S_IFSOCK
from typing import Any

import pytest

from tests.integration.agent_process import AgentProcess, Client, Refused, listening
from tests.integration.guest_file import File
from tests.integration.test_explain_policy import explain

KINDS = ("file", "directory", "link", "dangling", "fifo", "socket", "circle", "program")
THERE = tuple(f"qx-{kind}" for kind in KINDS)
MISSING = "qx-missing"


class Place:
    """A forbidden directory with one file of each kind, and an allowed one."""

    def __init__(self, directory: Path) -> None:
        self.allowed, self.forbidden = directory / "allowed", directory / "forbidden"
        self.allowed.mkdir()
        (self.allowed / "file").write_text("good")
        self.forbidden.mkdir()
        file, below, link, dangling, fifo, socket, circle, program = (
            self.forbidden / name for name in THERE
        )
        file.write_text("secret")
        (self.forbidden / "plain").mkdir()
        (below / "below").mkdir(parents=True)
        link.symlink_to(file.name)
        dangling.symlink_to("nowhere")
        os.mkfifo(fifo)
        os.mknod(socket, S_IFSOCK | 0o600)
        circle.symlink_to(circle.name)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        self.conf = directory / "qemu-ga.conf"
        self.config = (
            f"[files]\nread={self.allowed}/\nwrite={self.allowed}/\n"
            f"[exec]\nallow={self.allowed}/run-*\nallow=/usr/bin/env -0\n[accounts]\nallow=\n"
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def agent(place: Place, tmp_path: Path) -> Iterator[AgentProcess]:
    with listening(tmp_path, config=place.config) as agent:
        yield agent


@pytest.fixture
def client(agent: AgentProcess) -> Iterator[Client]:
    with agent.connect() as client:
        yield client


def replies(client: Client, path: str, name: str) -> dict[str, str]:
    """The reply of each command to a path, without the name in the request."""
    asked: list[tuple[str, dict[str, Any]]] = [
        *(("guest-file-open", {"path": path, "mode": mode}) for mode in ("r", "w", "a", "r+")),
        ("qga-file-checksum", {"path": path}),
        ("guest-exec", {"path": path}),
        ("qga-exec", {"path": path}),
        ("qga-exec", {"path": path, "directory": path, "tty": True}),
    ]
    found = {}
    for command, arguments in asked:
        try:
            client.call(command, **arguments)
            said = "done"
        except Refused as error:
            said = f"{error.error_class} {error}".replace(name, "*")
        found[f"{command} {arguments}".replace(name, "*")] = said
    return found


@pytest.mark.parametrize(
    "form",
    [
        "{forbidden}/{name}",
        "{forbidden}/{name}/",
        "{forbidden}/{name}/below",
        "{forbidden}/{name}/.",
        "{forbidden}/plain/../{name}",
        "{allowed}/../forbidden/{name}",
        "{allowed}/out/{name}",
        "{allowed}/to-{name}",
        "{allowed}/to-{name}/below",
        "{forbidden}/{name}/../../allowed/none/none",
        "{forbidden}/{name}/../../allowed/file/",
        "{forbidden}/{name}/below/../../../allowed/none/none",
    ],
)
def test_no_command_reveals_what_exists(client: Client, place: Place, form: str) -> None:
    (place.allowed / "out").symlink_to(place.forbidden)
    for name in (*THERE, MISSING):
        (place.allowed / f"to-{name}").symlink_to(place.forbidden / name)

    def told(name: str) -> dict[str, str]:
        path = form.format(forbidden=place.forbidden, allowed=place.allowed, name=name)
        return replies(client, path, name)

    missing = told(MISSING)
    assert all("refused" in text or "allowed" in form for text in missing.values())
    for name in THERE:
        assert told(name) == missing, name


def test_a_path_through_a_forbidden_place_opens_what_it_says(client: Client, place: Place) -> None:
    """Whether the place exists or not: `..` is resolved before anything is looked up."""
    for name in (*THERE, MISSING):
        path = f"{place.forbidden}/{name}/../../allowed/file"
        assert File(client, path).read() == (b"good", True)


def test_names_of_programs(client: Client, place: Place) -> None:
    """Some are in PATH, some are not, and one is allowed with other arguments."""
    for arguments in ([], ["x"]):
        told = {
            client.refusal("guest-exec", path=name, arg=arguments).replace(f"'{name}'", "'*'")
            for name in ("sh", "ls", "awk", "id", "no-such-program", ".", "")
        }
        assert told == {
            "Command guest-exec has been refused: the program '*' is not in [exec] allow of "
            f"{place.conf}"
        }


def test_names_in_a_path_that_the_request_chose(tmp_path: Path, place: Place) -> None:
    config = place.config.replace("[exec]\n", "[exec]\nenvironment=keep\n")
    with listening(tmp_path, config=config) as agent, agent.connect() as client:
        env = [f"PATH={place.forbidden}"]
        told = {
            client.refusal("guest-exec", path=name, env=env).replace(f"'{name}'", "'*'")
            for name in (*THERE, MISSING)
        }
        assert len(told) == 1


def test_the_log_of_the_guest_and_explain_have_it(
    agent: AgentProcess, client: Client, place: Place
) -> None:
    path = f"{place.forbidden}/qx-link"
    assert str(place.forbidden / "qx-file") not in client.refusal("guest-file-open", path=path)
    agent.wait_for_log(f"; its real path is '{place.forbidden}/qx-file'")
    _, text = explain(place.conf, "guest-file-open", f"path={path}")
    assert f"Its real path is '{place.forbidden}/qx-file'." in text
    assert "/usr/bin/" not in client.refusal("guest-exec", path="awk")
    agent.wait_for_log(f"; its real path is '{os.path.realpath('/usr/bin/awk')}'")


def test_links_that_may_not_be_written_through(tmp_path: Path, place: Place) -> None:
    """A link in a forbidden place that leads to an allowed one is not revealed either."""
    (place.forbidden / "in").symlink_to(place.allowed / "file")
    config = f"[files]\nwrite={place.allowed}/\n"
    with listening(tmp_path, config=config) as agent, agent.connect() as client:
        told = {
            client.refusal("guest-file-open", path=f"{place.forbidden}/{name}", mode="w").replace(
                f"/{name}'", "/*'"
            )
            for name in ("in", "nil", *THERE)
        }
        assert len(told) == 1
