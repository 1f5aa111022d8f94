"""Messages: one line each, never an exception, nothing while frozen."""

from __future__ import annotations

import os
import re
import socket
import stat
import sys
import time
import types
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qga.service import log as log_module
from qga.service import sinks
from qga.service.log import MAX_KEPT, MAX_TEXT, MESSAGE_IDS, Log, escape, mark_levels, open_log
from qga.service.sinks import ERROR, WARNING, FileSink, StderrSink
from qga.settings.config import Config

PATIENCE = 30.0
Captured = pytest.CaptureFixture[str]


def test_stderr_is_plain_text(capfd: Captured) -> None:
    log = Log()
    log.warning("odd")
    log.error("wrong", path="/x")
    assert capfd.readouterr().err == "qemu-ga: warning: odd\nqemu-ga: error: wrong\n"


def test_info_and_debug_only_when_verbose(capfd: Captured) -> None:
    for verbose in (False, True):
        log = Log(verbose=verbose)
        log.info("a")
        log.debug("b")
    assert capfd.readouterr().err == "qemu-ga: info: a\nqemu-ga: debug: b\n"


def test_a_service_without_systemd_python_tells_the_level_by_prefix(capfd: Captured) -> None:
    Log(StderrSink(in_service=True)).warning("odd")
    assert capfd.readouterr().err == "<4>odd\n"


def test_the_file_has_time_and_level_and_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    log = open_log(Config(logfile=str(path), statedir=str(tmp_path)))
    log.warning("odd", command="guest-ping")
    before, line = path.read_text().splitlines()
    assert before == "before"
    assert re.fullmatch(r"\d{10}\.\d{6}: warning: odd", line)


def test_reopen_follows_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = open_log(Config(logfile=str(path), statedir=str(tmp_path)))
    log.warning("one")
    path.rename(tmp_path / "log.1")
    log.warning("two")
    log.reopen()
    log.warning("three")
    assert (tmp_path / "log.1").read_text().count("\n") == 2
    assert path.read_text().endswith("warning: three\n")


def test_a_file_that_cannot_be_reopened_sends_messages_to_stderr(
    tmp_path: Path, capfd: Captured
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = open_log(Config(logfile=str(folder / "log"), statedir=str(tmp_path)))
    (folder / "log").unlink()
    folder.rmdir()
    log.reopen()
    log.warning("odd")
    assert capfd.readouterr().err == (
        "qemu-ga: error: cannot reopen the log file: No such file or directory\n"
        "qemu-ga: warning: odd\n"
    )


def test_no_message_is_long(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = open_log(Config(logfile=str(path), statedir=str(tmp_path)))
    log.error("x" * 3_000_000, path="/x")
    log.announce(WARNING, "x" * 3_000_000)
    assert [line.count("x") for line in path.read_text().splitlines()] == [MAX_TEXT] * 2


def test_fields_are_short(capfd: Captured) -> None:
    taken: list[tuple[int, str, dict[str, str]]] = []

    class Kept(StderrSink):
        def write(self, *message: Any) -> None:
            taken.append(message)

    Log(Kept()).warning("odd", path="\n" * 3_000_000)
    [(_, _, fields)] = taken
    assert fields["path"] == "\\n" * MAX_TEXT


def test_a_full_disk_stops_nothing(capfd: Captured) -> None:
    Log(FileSink("/dev/full")).error("wrong")
    assert capfd.readouterr().err == "qemu-ga: error: wrong\n"


def test_a_closed_stderr_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_fd: int, _data: bytes) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(os, "write", fail)
    Log().error("wrong")


def test_a_log_file_that_cannot_be_opened_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_log(Config(logfile=str(tmp_path / "none" / "log"), statedir=str(tmp_path)))


def test_no_line_can_be_forged(capfd: Captured) -> None:
    Log().warning("a\nqemu-ga: error: b\r\x1b[2J\u2028")
    assert capfd.readouterr().err == ("qemu-ga: warning: a\\nqemu-ga: error: b\\r\\x1b[2J\\u2028\n")


def test_each_kind_of_message_has_an_id_of_its_own() -> None:
    assert len(set(MESSAGE_IDS.values())) == len(MESSAGE_IDS)
    assert all(re.fullmatch("[0-9a-f]{32}", value) for value in MESSAGE_IDS.values())


@given(st.text())
def test_whatever_is_logged_is_one_line_of_utf_8(text: str) -> None:
    line = escape(text).encode("utf-8", "backslashreplace").decode()
    assert len(line.splitlines()) <= 1
    assert escape(line) == line


def test_nothing_is_written_while_frozen(tmp_path: Path) -> None:
    (tmp_path / "qga.state.isfrozen").touch()
    path = tmp_path / "log"
    log = open_log(Config(logfile=str(path), statedir=str(tmp_path)))
    log.warning("one")
    log.error("two")
    log.debug("not kept")
    log.reopen()
    assert log.frozen
    assert not path.exists()
    log.frozen = False
    log.warning("three")
    lines = [line.partition(": ")[2] for line in path.read_text().splitlines()]
    assert lines == [
        "warning: one (0 s ago, while filesystems were frozen)",
        "error: two (0 s ago, while filesystems were frozen)",
        "warning: three",
    ]


def test_of_many_messages_while_frozen_the_first_are_reported_and_the_others_counted(
    capfd: Captured,
) -> None:
    log = Log(frozen=True)
    for number in range(MAX_KEPT + 3):
        log.warning(f"number {number}")
    log.frozen = False
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == MAX_KEPT + 1
    assert f"number {MAX_KEPT - 1} (" in lines[-2]
    assert lines[-1] == (
        "qemu-ga: warning: 3 more messages were dropped while filesystems were frozen"
    )


def test_while_frozen_no_channel_hides_the_messages_of_another(capfd: Captured) -> None:
    log = Log(frozen=True)
    for number in range(MAX_KEPT + 3):
        log.warning(f"flood {number}", channel="bad")
    log.warning("of the agent")
    log.warning("what matters", channel="good")
    log.frozen = False
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == MAX_KEPT + 3
    assert "of the agent (" in lines[-3]
    assert "what matters (" in lines[-2]
    assert "3 more messages were dropped" in lines[-1]


def test_a_thaw_without_messages_is_silent(capfd: Captured) -> None:
    log = Log()
    log.frozen = True
    log.frozen = False
    assert capfd.readouterr().err == ""


def test_the_journal_takes_fields_where_systemd_python_is(
    monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    entries = []
    journal = types.ModuleType("systemd._journal")
    journal.sendv = lambda *fields: entries.append(fields)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "systemd", types.ModuleType("systemd"))
    monkeypatch.setitem(sys.modules, "systemd._journal", journal)
    status = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    log = open_log(Config())
    log.debug("not kept")
    log.info("odd\udc80", kind="command", command="guest-ping\nPRIORITY=0")
    assert entries == [
        (b"MESSAGE=odd\\udc80", b"PRIORITY=6", b"SYSLOG_IDENTIFIER=qemu-ga",
         b"QGA_COMMAND=guest-ping\\nPRIORITY=0",
         b"MESSAGE_ID=" + MESSAGE_IDS["command"].encode()),
    ]  # fmt: skip
    log.info("ran [whole]: done", kind="command", arguments="[whole]", brief="[first …]")
    assert [field.decode() for field in entries[1]][:-1] == [
        *("MESSAGE=ran [first …]: done", "PRIORITY=6", "SYSLOG_IDENTIFIER=qemu-ga"),
        "QGA_ARGUMENTS=[whole]",
    ]
    assert capfd.readouterr().err == ""


def test_a_service_works_without_systemd_python(
    monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    monkeypatch.setitem(sys.modules, "systemd._journal", None)
    status = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    open_log(Config()).error("wrong")
    assert capfd.readouterr().err == "<3>wrong\n"


def test_what_is_written_before_there_is_a_log_has_a_level_in_the_journal(
    monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    status = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    Log().warning("odd")
    Log(FileSink("/dev/full")).error("wrong")
    assert capfd.readouterr().err == "<4>odd\n<3>wrong\n"


def test_python_s_own_complaints_are_errors_in_the_journal(
    monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    status = os.fstat(2)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    mark_levels()
    print("one", file=sys.stderr)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    mark_levels()
    print("two", "three\nfour", file=sys.stderr, flush=True)
    sys.excepthook(ValueError, ValueError("five"), None)
    assert capfd.readouterr().err == "one\n<3>two three\n<3>four\n<3>ValueError: five\n"


def test_the_journal_of_somebody_else_is_not_ours(
    monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    open_log(Config()).error("wrong")
    assert capfd.readouterr().err == "qemu-ga: error: wrong\n"


class Syslog:
    """A stand-in for the syslog daemon."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.start()

    def start(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self._path))
        self.socket.setblocking(False)

    def stop(self) -> None:
        self.socket.close()
        self._path.unlink()

    def received(self) -> list[str]:
        """What has arrived, without the time."""
        texts = []
        with suppress(BlockingIOError):
            while True:
                texts.append(self.socket.recv(65536).decode())
        pattern = r"<(\d+)>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d qemu-ga\[\d+\]: "
        assert all(re.match(pattern, text) for text in texts), texts
        return [re.sub(pattern, r"\1 ", text) for text in texts]


@pytest.fixture
def syslog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Syslog]:
    connections: list[Any] = []

    def connect(path: str) -> object:
        connection = real_connect(path)
        connections.append(connection)
        return connection

    real_connect = sinks._connect_to
    monkeypatch.setattr(sinks, "_connect_to", connect)
    monkeypatch.setattr(sinks, "_SYSLOG", str(tmp_path / "syslog"))
    monkeypatch.setitem(sys.modules, "systemd._journal", None)
    stand_in = Syslog(tmp_path / "syslog")
    yield stand_in
    stand_in.socket.close()
    for connection in filter(None, connections):
        connection.close()


def entries(log: Log) -> None:
    """Write what the host has done, what it was refused, and a complaint."""
    log.info("of no kind")
    log.info("exec", kind="command")
    log.warning("denied", kind="refused")
    log.debug("read", kind="command")
    log.error("wrong")


def test_a_daemon_uses_syslog_for_everything(syslog: Syslog) -> None:
    entries(open_log(Config(daemonize=True)))
    assert syslog.received() == ["30 of no kind", "30 exec", "28 denied", "27 wrong"]


def test_in_the_foreground_the_trail_goes_to_syslog(syslog: Syslog, capfd: Captured) -> None:
    entries(open_log(Config()))
    assert syslog.received() == ["30 exec", "28 denied"]
    assert capfd.readouterr().err == "qemu-ga: warning: denied\nqemu-ga: error: wrong\n"


def test_a_log_file_does_not_keep_the_trail_from_syslog(
    syslog: Syslog, tmp_path: Path, capfd: Captured
) -> None:
    path = tmp_path / "log"
    entries(open_log(Config(logfile=str(path), statedir=str(tmp_path))))
    assert syslog.received() == ["30 exec", "28 denied"]
    assert [line.partition(": ")[2] for line in path.read_text().splitlines()] == [
        "warning: denied",
        "error: wrong",
    ]
    assert capfd.readouterr().err == ""


def test_under_systemd_without_systemd_python_everything_goes_to_syslog_once(
    syslog: Syslog, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    status = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    entries(open_log(Config()))
    assert syslog.received() == ["30 of no kind", "30 exec", "28 denied", "27 wrong"]
    assert capfd.readouterr().err == ""


def test_verbose_messages_go_to_both(syslog: Syslog, capfd: Captured) -> None:
    entries(open_log(Config(verbose=True)))
    assert syslog.received() == ["30 exec", "28 denied"]
    assert len(capfd.readouterr().err.splitlines()) == 5


def test_without_syslog_the_trail_goes_to_stderr(syslog: Syslog, capfd: Captured) -> None:
    syslog.stop()
    entries(open_log(Config()))
    assert capfd.readouterr().err == (
        "qemu-ga: info: exec\nqemu-ga: warning: denied\nqemu-ga: error: wrong\n"
    )


def test_syslog_that_is_replaced_or_starts_later_is_found(syslog: Syslog, capfd: Captured) -> None:
    log = open_log(Config())
    log.info("one", kind="command")
    assert syslog.received() == ["30 one"]
    syslog.stop()
    log.info("two", kind="command")
    assert capfd.readouterr().err == "qemu-ga: info: two\n"
    syslog.start()
    time.sleep(sinks._ABSENCE)
    log.info("three", kind="command")
    assert syslog.received() == ["30 three"]


def test_syslog_that_is_absent_is_not_looked_for_by_each_message(
    syslog: Syslog, capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    syslog.stop()
    looks: list[str] = []
    monkeypatch.setattr(sinks, "_connect_to", looks.append)
    monkeypatch.setattr(sinks, "_ABSENCE", 60.0)
    log = open_log(Config())
    for _ in range(3):
        log.info("one", kind="command")
    assert len(looks) == 1
    assert capfd.readouterr().err == 3 * "qemu-ga: info: one\n"


def test_syslog_that_does_not_read_delays_nothing(syslog: Syslog, capfd: Captured) -> None:
    log = open_log(Config())
    for number in range(5000):
        log.info(str(number), kind="command")
    received = syslog.received()
    on_stderr = capfd.readouterr().err.splitlines()
    assert received[0] == "30 0"
    assert on_stderr[-1] == "qemu-ga: info: 4999"
    assert len(received) + len(on_stderr) == 5000


def test_a_long_message_fits_syslog(syslog: Syslog) -> None:
    open_log(Config()).info("x" * 1_000_000, kind="command")
    (text,) = syslog.received()
    assert 8000 < len(text) < 8192


def test_the_trail_of_a_freeze_reaches_syslog_after_the_thaw(
    syslog: Syslog, capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "_PATIENCE", PATIENCE)  # this process may have to wait
    log = open_log(Config())
    log.frozen = True
    for number in range(MAX_KEPT + 2):
        log.info(f"exec {number}", kind="command", channel="main")
    assert syslog.received() == []
    thaw = Thread(target=lambda: setattr(log, "frozen", False))
    thaw.start()
    syslog.socket.settimeout(PATIENCE)  # it has room for few messages, and the thaw waits for it
    received = [syslog.socket.recv(8192).decode() for _ in range(MAX_KEPT + 1)]
    thaw.join()
    assert "exec 0 (0 s ago, while filesystems were frozen)" in received[0]
    assert f"exec {MAX_KEPT - 1} (" in received[-2]
    assert "2 more messages were dropped" in received[-1]
    assert capfd.readouterr().err.count("exec") == 0


def test_a_thaw_does_not_wait_long_for_syslog(
    syslog: Syslog, capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "_PATIENCE", 0.05)
    log = open_log(Config())
    log.frozen = True
    for number in range(MAX_KEPT):
        for channel in range(50):
            log.info(f"exec {number}", kind="command", channel=channel)
    log.frozen = False
    assert "exec" in capfd.readouterr().err


def test_an_announcement_while_frozen_waits_where_stderr_is_a_file(
    tmp_path: Path, capfd: Captured
) -> None:
    """capfd makes it one."""
    (tmp_path / "qga.state.isfrozen").touch()
    log = open_log(Config(statedir=str(tmp_path)))
    log.announce(WARNING, "frozen\x1b")
    assert capfd.readouterr().err == ""
    log.frozen = False
    assert capfd.readouterr().err == (
        "qemu-ga: warning: frozen\\x1b (0 s ago, while filesystems were frozen)\n"
    )


def test_an_announcement_while_frozen_is_seen_on_a_pipe_at_once(tmp_path: Path) -> None:
    (tmp_path / "qga.state.isfrozen").touch()
    path = tmp_path / "log"
    read_fd, write_fd = os.pipe()
    stderr = os.dup(2)
    os.dup2(write_fd, 2)
    try:
        log = open_log(Config(statedir=str(tmp_path), logfile=str(path)))
        log.announce(WARNING, "frozen")
        assert os.read(read_fd, 100) == b"qemu-ga: warning: frozen\n"
        assert not path.exists()
        log.frozen = False
    finally:
        os.dup2(stderr, 2)
        for fd in (read_fd, write_fd, stderr):
            os.close(fd)
    assert path.read_text().endswith(": warning: frozen (0 s ago, while filesystems were frozen)\n")


def test_an_announcement_is_seen_once_on_stderr(syslog: Syslog, capfd: Captured) -> None:
    syslog.stop()
    open_log(Config(daemonize=True)).announce(ERROR, "wrong")
    assert capfd.readouterr().err == "qemu-ga: error: wrong\n"
    syslog.start()
    open_log(Config(daemonize=True)).announce(ERROR, "wrong")
    assert syslog.received() == ["27 wrong"]
    assert capfd.readouterr().err == "qemu-ga: error: wrong\n"


def test_other_users_cannot_read_the_log_file(tmp_path: Path) -> None:
    """It quotes the arguments of programs."""
    before = os.umask(0)
    try:
        open_log(Config(logfile=str(tmp_path / "log"), statedir=str(tmp_path)))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o640
