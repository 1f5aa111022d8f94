"""Freezing with stand-ins for the kernel's part, so that every order of events can be had.

The agent is whole, with two channels; what it would freeze are entries of a set.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from qga.agent import Agent
from qga.service.log import Log
from qga.settings.config import ChannelConfig, Config
from tests.differences import differs

freeze: Any = import_module("qga.commands.freeze")
freezer: Any = import_module("qga.commands._freezer")
hooks: Any = import_module("qga.commands._hooks")
mounts: Any = import_module("qga.commands._mounts")

PATIENCE = 10.0
ORPHAN = 1
SILENCE = 0.3
FREEZE, THAW, STATUS = "guest-fsfreeze-freeze", "guest-fsfreeze-thaw", "guest-fsfreeze-status"


class Kernel:
    """Filesystems a, b and c, each in a directory."""

    def __init__(self, folder: Path) -> None:
        self.mounts = {}
        for minor, name in enumerate("abc"):
            (folder / name).mkdir()
            self.mounts[name] = mounts.Mount((8, minor), [str(folder / name)], "ext4", "/dev/x")
        self.frozen: set[str] = set()
        self.fails: dict[str, int] = {}
        self.blind = 0
        self._opened: dict[int, str] = {}

    def block_mounts(self) -> list[Any]:
        return list(self.mounts.values())

    def open_mount(self, mount: Any) -> int:
        if self.blind:
            raise OSError(self.blind, os.strerror(self.blind))
        fd = os.open(mount.paths[0], os.O_RDONLY)
        self._opened[fd] = os.path.basename(mount.paths[0])
        return fd

    def ioctl(self, fd: int, request: int) -> None:
        name = self._opened[fd]
        freezes = request == freezer._FIFREEZE
        error = self.fails.get(name, 0) if freezes else 0
        if not error and freezes == (name in self.frozen):
            error = errno.EBUSY if freezes else errno.EINVAL
        if error:
            raise OSError(error, os.strerror(error))
        (self.frozen.add if freezes else self.frozen.remove)(name)


class Host:
    """A client of a channel."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(str(path))
        self._lines = self.socket.makefile("rb")

    def send(self, command: str, **arguments: Any) -> None:
        request = {"execute": command, "arguments": arguments}
        self.socket.sendall(json.dumps(request).encode() + b"\n")

    def reply(self) -> Any:
        reply = json.loads(self._lines.readline().lstrip(b"\xff"))
        return reply["return"] if "return" in reply else reply["error"]["desc"]

    def ask(self, command: str, **arguments: Any) -> Any:
        self.send(command, **arguments)
        return self.reply()

    def is_silent(self) -> bool:
        self.socket.settimeout(SILENCE)
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except socket.timeout:  # Python 3.9 has no TimeoutError here
            return True
        finally:
            self.socket.settimeout(PATIENCE)

    def close(self) -> None:
        self._lines.close()
        self.socket.close()


class Sink:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, priority: int, text: str, fields: dict[str, str]) -> None:
        self.text += f"{text}\n"

    def reopen(self) -> None:
        pass


class Stage:
    def __init__(self, folder: Path, kernel: Kernel) -> None:
        self.folder = folder
        self.kernel = kernel
        self.log = Sink()
        self.gate = folder / "gate"
        self.calls = folder / "calls"
        self.hook = folder / "hook"
        self.hook.write_text(
            f"#!/bin/sh\necho $1 >>{self.calls}\nwhile [ -e {self.gate}.$1 ]; do sleep 0.02; done\n"
            f"[ ! -e {folder}/fail.$1 ]\n"
        )
        self.hook.chmod(0o755)
        self.calls.touch()
        self._hosts: list[Host] = []

    @contextmanager
    def agent(self, **settings: Any) -> Iterator[None]:
        channels = tuple(
            ChannelConfig(name, "unix-listen", str(self.folder / name)) for name in ("one", "two")
        )
        config = Config(
            channels,
            statedir=str(self.folder),
            fsfreeze_hook=str(self.hook),
            **{"fsfreeze_orphan_timeout": ORPHAN, **settings},
        )
        self.running = agent = Agent(config, Log(self.log))
        agent.open()
        thread = threading.Thread(target=agent.run)
        thread.start()
        try:
            yield
        finally:
            agent.loop.post(agent.stop)
            thread.join(PATIENCE)
            agent.close()

    def host(self, channel: str = "one") -> Host:
        host = Host(self.folder / channel)
        self._hosts.append(host)
        return host

    def shut(self, action: str) -> None:
        """Have the hook wait when it is called for this."""
        Path(f"{self.gate}.{action}").touch()

    def open(self, action: str) -> None:
        Path(f"{self.gate}.{action}").unlink()

    def fail(self, action: str) -> None:
        (self.folder / f"fail.{action}").touch()

    def called(self) -> list[str]:
        return self.calls.read_text().split()

    def slow_freeze(self, host: Host) -> None:
        """A freeze of which the hook waits."""
        self.shut("freeze")
        host.send(FREEZE)
        eventually(lambda: self.called()[-1:] == ["freeze"])

    def end(self) -> None:
        for host in self._hosts:
            host.close()
        for action in ("freeze", "thaw"):
            Path(f"{self.gate}.{action}").unlink(missing_ok=True)


def eventually(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    kernel = Kernel(tmp_path)
    monkeypatch.setattr(freeze, "block_mounts", kernel.block_mounts)
    for name in ("block_mounts", "open_mount", "ioctl"):
        monkeypatch.setattr(freezer, name, getattr(kernel, name))
    monkeypatch.setattr(hooks.trust, "require", lambda path, *_owners: path)
    stage = Stage(tmp_path, kernel)
    yield stage
    stage.end()


@pytest.fixture
def host(stage: Stage) -> Iterator[Host]:
    with stage.agent():
        yield stage.host()


def assert_ends_by_itself(stage: Stage) -> None:
    eventually(lambda: stage.kernel.frozen)
    eventually(lambda: not stage.kernel.frozen)
    eventually(lambda: stage.called() == ["freeze", "thaw"])
    eventually(
        lambda: "within 1 s (fsfreeze-orphan-timeout): thawed 3 filesystems" in stage.log.text
    )
    assert stage.host("two").ask(STATUS) == "thawed"
    assert stage.host("two").ask(THAW) == 0


def assert_lasts(stage: Stage) -> None:
    time.sleep(ORPHAN + 0.5)
    assert stage.kernel.frozen == {"a", "b", "c"}
    assert stage.called()[-1:] == ["freeze"]


def test_what_is_frozen_is_reported(stage: Stage, host: Host) -> None:
    stage.kernel.fails["b"] = errno.EOPNOTSUPP
    assert "filesystems" not in host.ask("qga-get-freeze")
    assert host.ask(FREEZE) == 2
    state = host.ask("qga-get-freeze")
    assert [Path(each["mountpoint"]).name for each in state["filesystems"]] == ["c", "a"]
    (left_out,) = state["left-out"]
    assert left_out == {
        "mountpoint": f"{stage.folder}/b",
        "type": "ext4",
        "reason": "this type of filesystem cannot be frozen",
    }
    assert state["hooks"] == [str(stage.hook)]
    host.ask(THAW)
    assert host.ask("qga-get-freeze") == {"status": "thawed"}


def test_what_nobody_can_write_to_is_not_left_out(
    stage: Stage, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.kernel.fails["b"] = errno.EOPNOTSUPP
    monkeypatch.setattr(freeze, "is_read_only", lambda mount: mount.paths[0].endswith("b"))
    assert host.ask(FREEZE) == 2
    assert host.ask("qga-get-freeze")["left-out"] == []


def test_an_excluded_filesystem_is_left_out(stage: Stage) -> None:
    with stage.agent(fsfreeze_exclude=(f"{stage.folder}/a",)):
        host = stage.host()
        assert host.ask(FREEZE) == 2
        (left_out,) = host.ask("qga-get-freeze")["left-out"]
        assert left_out["reason"] == "the guest's configuration excludes it (fsfreeze-exclude)"


def test_status_waits_for_a_freeze_on_any_channel(stage: Stage, host: Host) -> None:
    stage.slow_freeze(host)
    others = [stage.host("one"), stage.host("two"), stage.host("two")]
    for other in others:
        other.send(STATUS)
    assert all(other.is_silent() for other in others)
    assert stage.host("two").ask("guest-ping") == {}
    assert stage.host("two").ask("guest-info")
    stage.open("freeze")
    assert host.reply() == 3
    assert [other.reply() for other in others] == ["frozen"] * 3


def test_status_waits_for_a_freeze_that_fails(stage: Stage, host: Host) -> None:
    stage.fail("freeze")
    stage.slow_freeze(host)
    other = stage.host("two")
    other.send(STATUS)
    assert other.is_silent()
    stage.open("freeze")
    assert other.reply() == "thawed"
    assert "has failed with status 1" in host.reply()


def test_status_waits_for_a_thaw_and_its_hooks(stage: Stage, host: Host) -> None:
    assert host.ask(FREEZE) == 3
    stage.shut("thaw")
    host.send(THAW)
    eventually(lambda: stage.called() == ["freeze", "thaw"])
    other = stage.host("two")
    other.send(STATUS)
    assert other.is_silent()
    stage.open("thaw")
    assert (host.reply(), other.reply()) == (3, "thawed")


def test_a_sync_overtakes_and_status_still_tells_the_truth(stage: Stage, host: Host) -> None:
    stage.slow_freeze(host)
    for number in (1, 2):
        assert host.ask("guest-sync", id=number) == number
        host.send(STATUS)
        assert host.is_silent()
    stage.open("freeze")
    assert host.reply() == "frozen"
    assert_lasts(stage)


def test_statuses_that_nobody_waits_for_pile_up_nowhere(stage: Stage, host: Host) -> None:
    stage.slow_freeze(host)
    for _ in range(40):
        other = stage.host("two")
        other.send("guest-ping")
        other.send(STATUS)
        other.reply()
        other.close()
    eventually(lambda: not stage.running.postponed)
    assert stage.host("two").ask("guest-ping") == {}
    assert stage.host("two").ask(THAW) == 0
    stage.open("freeze")
    assert host.reply() == "the freeze was ended by guest-fsfreeze-thaw"


def test_a_freeze_ends_whose_client_has_left(stage: Stage, host: Host) -> None:
    stage.slow_freeze(host)
    host.close()
    stage.open("freeze")
    assert_ends_by_itself(stage)


def test_a_freeze_ends_whose_client_has_synchronised_again(stage: Stage, host: Host) -> None:
    stage.slow_freeze(host)
    assert host.ask("guest-sync-delimited", id=7) == 7
    stage.open("freeze")
    assert_ends_by_itself(stage)


def test_a_freeze_ends_whose_reply_was_not_awaited(stage: Stage, host: Host) -> None:
    assert host.ask(FREEZE) == 3
    assert host.ask("guest-sync", id=7) == 7
    assert_ends_by_itself(stage)


def test_a_question_that_was_given_up_does_not_count(stage: Stage, host: Host) -> None:
    stage.slow_freeze(host)
    other = stage.host("two")
    other.send(STATUS)
    assert other.is_silent()
    other.close()
    host.close()
    time.sleep(0.2)
    stage.open("freeze")
    assert_ends_by_itself(stage)


@pytest.mark.parametrize("question", [STATUS, None])
def test_a_freeze_lasts_of_which_somebody_knows(
    stage: Stage, host: Host, question: str | None
) -> None:
    """Who has had the reply, or has asked for the status in time, though not for the reply."""
    if question is None:
        assert host.ask(FREEZE) == 3
    else:
        stage.slow_freeze(host)
        host.close()
        stage.open("freeze")
        eventually(lambda: len(stage.kernel.frozen) == 3)
        time.sleep(0.3)
        assert stage.host("two").ask(question) == "frozen"
    assert_lasts(stage)
    assert stage.host("two").ask(THAW) == 3


@pytest.mark.parametrize("command", ["guest-ping", "guest-info", "guest-get-host-name"])
def test_nothing_but_the_status_counts(stage: Stage, host: Host, command: str) -> None:
    stage.slow_freeze(host)
    host.close()
    stage.open("freeze")
    eventually(lambda: len(stage.kernel.frozen) == 3)
    stage.host("two").ask(command)
    assert_ends_by_itself(stage)


def test_a_delimited_sync_behind_the_reply_is_how_some_clients_begin(
    stage: Stage, host: Host
) -> None:
    assert host.ask(FREEZE) == 3
    assert host.ask("guest-sync-delimited", id=7) == 7
    assert_lasts(stage)


def test_a_later_freeze_has_its_own_time(stage: Stage, host: Host) -> None:
    stage.slow_freeze(host)
    host.close()
    stage.open("freeze")
    eventually(lambda: len(stage.kernel.frozen) == 3)
    other = stage.host("two")
    time.sleep(0.3)
    assert other.ask(THAW) == 3
    assert other.ask(FREEZE) == 3
    assert_lasts(stage)


def test_a_freeze_waits_for_the_thaw_before_it(stage: Stage, host: Host) -> None:
    assert host.ask(FREEZE) == 3
    stage.shut("thaw")
    host.send(THAW)
    eventually(lambda: stage.called() == ["freeze", "thaw"])
    other = stage.host("two")
    other.send(FREEZE)
    assert other.is_silent()
    stage.open("thaw")
    assert (host.reply(), other.reply()) == (3, 3)
    assert stage.called() == ["freeze", "thaw", "freeze"]
    assert stage.kernel.frozen == {"a", "b", "c"}


def test_no_orphan_without_a_limit(stage: Stage) -> None:
    with stage.agent(fsfreeze_orphan_timeout=0):
        host = stage.host()
        stage.slow_freeze(host)
        host.close()
        stage.open("freeze")
        eventually(lambda: len(stage.kernel.frozen) == 3)
        assert_lasts(stage)


def test_a_late_reply_where_clients_are_known_to_give_up(stage: Stage) -> None:
    """As libvirt does with guest-agent-timeout: it stays connected and says nothing."""
    with stage.agent(fsfreeze_reply_timeout=1):
        host = stage.host()
        stage.slow_freeze(host)
        time.sleep(1.1)
        stage.open("freeze")
        assert host.reply() == 3
        assert_ends_by_itself(stage)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENODEV, errno.ESTALE, errno.EROFS])
def test_what_has_lost_its_disk_takes_no_part(stage: Stage, host: Host, number: int) -> None:
    stage.kernel.fails["b"] = number
    assert host.ask(FREEZE) == 2
    assert stage.kernel.frozen == {"a", "c"}
    assert host.ask(THAW) == 2
    said = f"failed to freeze {stage.folder}/b: {os.strerror(number)}; it is left out of the freeze"
    eventually(lambda: said in stage.log.text)


def test_when_nothing_else_is_left_its_loss_is_an_error(stage: Stage, host: Host) -> None:
    stage.kernel.fails = dict.fromkeys("abc", errno.EIO)
    assert host.ask(FREEZE) == f"failed to freeze {stage.folder}/c: Input/output error"
    assert host.ask(STATUS) == "thawed"
    assert stage.called() == ["freeze", "thaw"]


def test_any_other_failure_thaws_all(stage: Stage, host: Host) -> None:
    stage.kernel.fails["a"] = errno.ENOSPC
    assert host.ask(FREEZE) == f"failed to freeze {stage.folder}/a: No space left on device"
    assert stage.kernel.frozen == set()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_thaw_that_cannot_look_is_an_error(stage: Stage, host: Host, number: int) -> None:
    stage.kernel.frozen = {"b"}  # by somebody else
    stage.kernel.blind = number
    assert os.strerror(number) in host.ask(THAW)
    stage.kernel.blind = 0
    assert host.ask(THAW) == 1


def test_what_it_has_frozen_it_thaws_without_a_look(stage: Stage, host: Host) -> None:
    assert host.ask(FREEZE) == 3
    stage.kernel.blind = errno.EMFILE
    assert "thawed 3 filesystems, but cannot look for others" in host.ask(THAW)
    assert stage.kernel.frozen == set()
    assert host.ask(STATUS) == "thawed"
    assert stage.called() == ["freeze", "thaw"]


def test_a_freeze_that_cannot_be_remembered_leaves_no_trace(stage: Stage, host: Host) -> None:
    marker = stage.folder / "qga.state.isfrozen"
    Path(f"{marker}.new").mkdir()
    stage.kernel.frozen = {"b"}  # by somebody else, whose it stays
    assert "failed to mark the agent as frozen" in host.ask(FREEZE)
    assert stage.kernel.frozen == {"b"}
    assert not marker.exists()
    assert stage.called() == ["freeze", "thaw"]
    assert host.ask(STATUS) == "thawed"


def test_an_agent_that_starts_while_all_is_frozen(stage: Stage) -> None:
    with stage.agent():
        assert stage.host().ask(FREEZE) == 3
    with stage.agent():
        host = stage.host("two")
        assert host.ask(STATUS) == "frozen"
        stage.kernel.blind = errno.EMFILE
        assert "Too many open files" in host.ask(THAW)
        assert host.ask(STATUS) == "frozen"
        stage.kernel.blind = 0
        assert host.ask(THAW) == 3
        assert host.ask(STATUS) == "thawed"


def test_a_thaw_by_itself_that_cannot_look_is_tried_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freeze, "_RETRY", 0.1)
    with stage.agent(freeze_timeout=1):
        assert stage.host().ask(FREEZE) == 3
    stage.kernel.blind = errno.ENOMEM
    with stage.agent(freeze_timeout=1):
        time.sleep(1.5)
        assert len(stage.kernel.frozen) == 3
        stage.kernel.blind = 0
        eventually(lambda: not stage.kernel.frozen)
        assert stage.host().ask(STATUS) == "thawed"
        assert stage.called()[-1] == "thaw"


def test_the_time_limit_of_a_freeze_that_has_ended_ends_no_other(stage: Stage) -> None:
    """All threads were busy at first, so that the thaw had to be tried again."""
    with stage.agent(freeze_timeout=3):
        host = stage.host()
        assert host.ask(FREEZE) == 3
        command = stage.running.registry.get("guest-fsfreeze-thaw")
        assert command
        assert isinstance(command.group, freeze.Freeze)
        thaw_later = command.group._thaw_later
        stage.running.loop.post(lambda: thaw_later("a reason"))
        eventually(lambda: stage.called()[-1:] == ["thaw"])
        time.sleep(0.5)
        assert host.ask(FREEZE) == 3
        assert host.ask(STATUS) == "frozen"
        time.sleep(2)  # until after the limit of the first
        assert stage.kernel.frozen


@differs("mount-points-not-utf8")
def test_a_mount_point_is_known_by_the_name_that_is_reported(stage: Stage, host: Host) -> None:
    for minor, name in enumerate((b"gr\xf6\xdfe\xef\xbf\xbf", b"gr\xf6\xdf"), 3):
        place = os.fsdecode(os.fsencode(stage.folder) + b"/" + name)
        os.mkdir(place)
        stage.kernel.mounts[place] = mounts.Mount((8, minor), [place], "ext4", "/dev/x")
    reported = f"{stage.folder}/gr\ufffd\ufffde\ufffd"  # the last is the noncharacter U+FFFF
    assert host.ask("guest-fsfreeze-freeze-list", mountpoints=[reported]) == 1
    assert [os.fsencode(name) for name in stage.kernel.frozen] == [b"gr\xf6\xdfe\xef\xbf\xbf"]
    frozen = host.ask("qga-get-freeze")["filesystems"]
    assert [each["mountpoint"] for each in frozen] == [reported]
    assert host.ask(THAW) == 1


def test_since_when_and_until_when(stage: Stage) -> None:
    """qga-get-freeze answers at once, also while a freeze is under way."""
    with stage.agent(freeze_timeout=600):
        one, two = stage.host(), stage.host("two")
        assert two.ask("qga-get-freeze") == {"status": "thawed"}
        stage.slow_freeze(one)
        assert two.ask("qga-get-freeze")["status"] == "freezing"
        stage.open("freeze")
        assert one.reply() == 3
        state = two.ask("qga-get-freeze")
        assert state["status"] == "frozen"
        assert 0 <= state["seconds"] < PATIENCE
        assert 600 - PATIENCE <= state["thaw-in"] <= 601
        assert one.ask(THAW) == 3
        assert two.ask("qga-get-freeze") == {"status": "thawed"}


def test_asking_since_when_keeps_no_orphan(stage: Stage) -> None:
    """Only the status does, which Proxmox VE takes for the outcome."""
    with stage.agent(fsfreeze_reply_timeout=1):
        one, two = stage.host(), stage.host("two")
        stage.slow_freeze(one)
        time.sleep(1.1)
        stage.open("freeze")
        assert one.reply() == 3
        deadline = time.monotonic() + PATIENCE
        while two.ask("qga-get-freeze")["status"] != "thawed":
            assert time.monotonic() < deadline, "it stays frozen"
            time.sleep(0.1)
    assert stage.kernel.frozen == set()


def test_by_default_a_freeze_that_took_long_needs_a_question() -> None:
    """libvirt gives up without a sign."""
    config = Config((ChannelConfig(),))
    assert 0 < config.fsfreeze_reply_timeout <= 10
    assert config.fsfreeze_orphan_timeout == 30


def test_since_when_outlives_a_restart(stage: Stage) -> None:
    with stage.agent():
        assert stage.host().ask(FREEZE) == 3
    with stage.agent():
        state = stage.host().ask("qga-get-freeze")
        assert state["status"] == "frozen"
        assert state["seconds"] >= 0
        assert stage.host().ask(THAW) == 3
