"""[files] and the profiles for files, with real files and attacks."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.agent_process import AgentProcess, Client, Refused, listening, request
from tests.integration.guest_file import File

SECRET = "forbidden content"


class Place:
    """A directory that is allowed, one that is not, and an agent with such rules."""

    def __init__(self, folder: Path) -> None:
        self.conf = folder / "qemu-ga.conf"
        self.allowed, self.forbidden = folder / "allowed", folder / "forbidden"
        self.allowed.mkdir()
        self.forbidden.mkdir()
        self.good, self.bad = self.allowed / "file", self.forbidden / "file"
        self.good.write_text("good")
        self.bad.write_text(SECRET)
        self.config = f"[files]\nread={self.allowed}/\nwrite={self.allowed}/\n"

    @property
    def is_intact(self) -> bool:
        return os.listdir(self.forbidden) == ["file"] and self.bad.read_text() == SECRET


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def guarded(place: Place, tmp_path: Path) -> Iterator[AgentProcess]:
    with listening(tmp_path, config=place.config) as agent:
        yield agent


@pytest.fixture
def client(guarded: AgentProcess) -> Iterator[Client]:
    with guarded.connect() as client:
        yield client


def test_what_is_allowed_works(client: Client, place: Place) -> None:
    assert File(client, place.good).read() == (b"good", True)
    File(client, place.allowed / "new", "w").write(b"x")
    File(client, place.allowed / "new", "a").write(b"y")
    assert (place.allowed / "new").read_text() == "xy"
    File(client, place.good, "w").close()
    assert place.good.read_text() == ""


@pytest.mark.parametrize("mode", ["r", "w", "a", "r+", "w+", "a+"])
def test_what_is_not_allowed_is_refused_and_logged(
    guarded: AgentProcess, client: Client, place: Place, mode: str
) -> None:
    key = "write" if mode in ("w", "a") else "read"
    reason = f"'{place.bad}' is not in [files] {key} of {place.conf}"
    with pytest.raises(Refused) as raised:
        File(client, place.bad, mode)
    assert raised.value.error_class == "GenericError"
    assert str(raised.value) == f"Command guest-file-open has been refused: {reason}"
    guarded.wait_for_log(f"guest-file-open refused: {reason} ({place.conf}, line")
    assert place.is_intact


@pytest.mark.parametrize("mode", ["r", "w", "a"])
@pytest.mark.parametrize(
    "path",
    [
        "allowed/../forbidden/file",
        "allowed/link/file",
        "allowed/folder-link/../../forbidden/file",
        "forbidden/new",
        "allowed/link/new",
        "forbidden/none/new",
        "forbidden",
        "allowed-not/file",
    ],
)
def test_no_way_round(client: Client, place: Place, tmp_path: Path, path: str, mode: str) -> None:
    (place.allowed / "link").symlink_to("../forbidden")
    (place.allowed / "folder").mkdir()
    (place.allowed / "folder-link").symlink_to("folder")
    refusal = client.refusal("guest-file-open", path=f"{tmp_path}/{path}", mode=mode)
    assert refusal.startswith("Command guest-file-open has been refused: ")
    assert place.is_intact


def test_the_last_link_is_resolved_for_reading(
    guarded: AgentProcess, client: Client, place: Place
) -> None:
    """Only the guest's log shows where it leads."""
    (place.allowed / "link").symlink_to(place.bad)
    (place.forbidden / "file").chmod(0o600)
    assert client.refusal("guest-file-open", path=f"{place.allowed}/link") == (
        f"Command guest-file-open has been refused: '{place.allowed}/link' is not in [files] read "
        f"of {place.conf}"
    )
    guarded.wait_for_log(f"; its real path is '{place.bad}'")


def test_a_path_of_the_agent_s_own_descriptors_is_resolved(client: Client, place: Place) -> None:
    """A pipe has no path, so that no pattern allows it."""
    for path in ("/proc/self/fd/2", "/dev/stderr", "/proc/self/mem", "/proc/self/environ"):
        assert "has been refused" in client.refusal("guest-file-open", path=path)


def test_a_device_or_a_fifo_that_is_refused_is_not_opened(client: Client, place: Place) -> None:
    """A writer that waits for a reader continues as soon as anybody opens the FIFO."""
    fifo = place.forbidden / "fifo"
    os.mkfifo(fifo)
    assert "has been refused" in client.refusal("guest-file-open", path=str(fifo))
    with pytest.raises(OSError, match="No such device or address"):
        os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)


def test_reading_alone_lets_nothing_be_written(tmp_path: Path, place: Place) -> None:
    config = f"[files]\nread={place.allowed}/*\n"
    with listening(tmp_path, config=config) as agent, agent.connect() as client:
        assert File(client, place.good).read() == (b"good", True)
        refusal = client.refusal("guest-file-open", path=str(place.good), mode="w")
        assert refusal.endswith(f"'{place.good}' is not in [files] write")
    assert place.good.read_text() == "good"


@pytest.mark.parametrize(
    ("profile", "opens"),
    [
        ("audit", ()),
        ("filesystem", ()),
        ("file-read", ("r",)),
        ("file-write", ("r", "w")),
        ("unrestricted", ("r", "w")),
    ],
)
def test_profiles(tmp_path: Path, place: Place, profile: str, opens: tuple[str, ...]) -> None:
    expected = {
        "guest-get-osinfo": True,
        "guest-fsfreeze-freeze": profile != "audit",
        "guest-file-open": bool(opens),
        "guest-file-read": bool(opens),
        "guest-file-write": "w" in opens,
        "guest-exec": profile == "unrestricted",
        "guest-shutdown": profile == "unrestricted",
    }
    config = f"[general]\nprofile={profile}\n"
    with listening(tmp_path, config=config) as agent, agent.connect() as client:
        commands = client.call("guest-info")["supported_commands"]
        enabled = {each["name"]: each["enabled"] for each in commands}
        assert {name: enabled[name] for name in expected} == expected
        for mode in ("r", "w"):
            try:
                File(client, place.good, mode).close()
                opened = True
            except Refused as error:
                opened = False
                whole = not opens
                assert error.error_class == ("CommandNotFound" if whole else "GenericError")
            assert opened == (mode in opens)
        if profile != "unrestricted":
            with pytest.raises(Refused) as raised:
                client.call("guest-exec", path="touch", arg=[str(place.allowed / "made")])
            assert raised.value.error_class == "CommandNotFound"
            assert str(raised.value) == (
                "Command guest-exec has been disabled: the command is not allowed"
            )
            agent.wait_for_log(f"line 2: profile={profile}")
    assert not (place.allowed / "made").exists()
    assert place.good.read_text() == ("" if "w" in opens else "good")


def test_each_channel_has_its_own_rules_and_handles(tmp_path: Path, place: Place) -> None:
    door = tmp_path / "door"
    config = (
        f"[files]\nread=/\nwrite=/\n[channel narrow]\nmethod=unix-listen\npath={door}\n"
        f"[files narrow]\nread={place.allowed}/\nwrite=\n"
    )
    with listening(tmp_path, config=config) as agent:
        agent.wait_for_socket(door)
        with agent.connect() as wide, agent.connect(door) as narrow:
            opened = File(wide, place.bad)
            assert "not in [files narrow] read" in narrow.refusal(
                "guest-file-open", path=str(place.bad)
            )
            assert "not in [files narrow] write" in narrow.refusal(
                "guest-file-open", path=str(place.good), mode="w"
            )
            for command in ("read", "close", "seek", "flush"):
                more = {"offset": 0, "whence": 0} if command == "seek" else {}
                assert (
                    narrow.refusal(f"guest-file-{command}", handle=opened.handle, **more)
                    == f"handle '{opened.handle}' has not been found"
                )
            assert opened.read() == (SECRET.encode(), True)


@pytest.fixture
def racing(place: Place, tmp_path: Path) -> Iterator[Client]:
    """A client of an agent that also follows links for writing, which is harder to protect."""
    config = f"{place.config}follow-symlinks=true\n"
    with listening(tmp_path, config=config) as agent, agent.connect() as client:
        yield client


def was_refused(reply: dict[str, Any]) -> bool:
    return "error" in reply and "has been refused" in reply["error"]["desc"]


@contextmanager
def flipping(flip: Callable[[], None]) -> Iterator[None]:
    """Repeat `step` as fast as possible meanwhile."""
    over = threading.Event()

    def attack() -> None:
        while not over.is_set():
            flip()

    thread = threading.Thread(target=attack)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def exchange_links(path: Path, *targets: Path) -> Callable[[], None]:
    """A function that makes `path` a link to one target after the other, without a gap."""
    other = path.with_name(f"{path.name}.next")

    def flip() -> None:
        for target in targets:
            other.symlink_to(target)
            other.rename(path)

    flip()
    return flip


def open_many(client: Client, path: Path, mode: str, count: int) -> Iterator[dict[str, Any]]:
    """The replies to this many guest-file-open, sent in batches."""
    batch = 50
    for _ in range(count // batch):
        client.send(b"".join([request("guest-file-open", path=str(path), mode=mode)] * batch))
        yield from client.replies(batch)


ROUNDS = 2000


@pytest.mark.parametrize("where", ["last", "folder"])
def test_a_race_for_reading(racing: Client, place: Place, tmp_path: Path, where: str) -> None:
    if where == "last":
        path = place.allowed / "flip"
        flip = exchange_links(path, place.good, place.bad)
    else:
        flip = exchange_links(place.allowed / "flip", place.allowed, place.forbidden)
        path = place.allowed / "flip" / "file"
    read, refused = 0, 0
    with flipping(flip):
        for reply in open_many(racing, path, "r", ROUNDS):
            refused += was_refused(reply)
            if "error" in reply:
                continue
            result = racing.call("guest-file-read", handle=reply["return"])
            assert base64.b64decode(result["buf-b64"]) == b"good"
            racing.call("guest-file-close", handle=reply["return"])
            read += 1
    assert read, "the attack met an open file"
    assert refused, "the attack met a refusal"


@pytest.mark.parametrize("mode", ["w", "a", "r+"])
@pytest.mark.parametrize("where", ["last", "folder", "new"])
def test_a_race_for_writing(racing: Client, place: Place, where: str, mode: str) -> None:
    """Whether a file exists, is created, or becomes a link: only the allowed one is affected."""
    path = place.allowed / "flip"
    other = place.allowed / "other"
    if where == "last":

        def flip() -> None:
            other.write_text("good")
            other.rename(path)
            other.symlink_to(place.bad)
            other.rename(path)

    else:
        flip = exchange_links(path, place.allowed, place.forbidden)
        path /= "file" if where == "folder" else "new"
    written, refused = 0, 0
    with flipping(flip):
        for reply in open_many(racing, path, mode, ROUNDS):
            refused += was_refused(reply)
            if "error" in reply:
                continue
            racing.call("guest-file-write", handle=reply["return"], buf_b64="aGl0")
            racing.call("guest-file-close", handle=reply["return"])
            written += 1
            (place.allowed / "new").unlink(missing_ok=True)
    assert place.is_intact
    assert refused, "the attack met a refusal"
    assert written or (where, mode) == ("new", "r+"), "the attack met an open file"
