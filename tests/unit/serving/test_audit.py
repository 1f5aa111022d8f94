"""Entries of the audit: without secrets, and bounded."""

from __future__ import annotations

import os
from base64 import b64encode, encodebytes
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qga import Base64, CommandGroup, QgaError, command
from qga.errors import CommandNotFound
from qga.loop import Loop
from qga.plugin.discovery import discover
from qga.plugin.entry import Command
from qga.plugin.registry import Registry, commands_of
from qga.policy.caller import Caller
from qga.policy.policy import Policy
from qga.service.log import MESSAGE_IDS, Log
from qga.service.sinks import DEBUG, INFO, WARNING
from qga.serving.audit import MAX_ARGUMENTS, MAX_BURST, Audit, Entry

CALLER = Caller("main", Policy(), "pid 7, uid 0")


class Sink:
    def __init__(self) -> None:
        self.entries: list[tuple[int, str, dict[str, str]]] = []

    def write(self, priority: int, text: str, fields: dict[str, str]) -> None:
        self.entries.append((priority, text, fields))

    def reopen(self) -> None:
        pass


class Vault(CommandGroup):
    @command(secret=("password", "env="))
    def qga_lock(self, door: str, password: str = "", env: tuple[str, ...] = ()) -> None:
        """Lock it."""

    @command(continues="drawer")
    def qga_put(self, drawer: int) -> None:
        """Put something in, where the drawer is open."""

    @command(access="audit")
    def qga_look(self) -> None:
        """Look at it."""


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def audit(sink: Sink, loop: Loop) -> Audit:
    return Audit(Log(sink, verbose=True), loop)


def vault(name: str) -> Command:
    registry = Registry()
    registry.add(Vault(None))  # type: ignore[arg-type]
    found = registry.get(name)
    assert found is not None
    return found


def lock(audit: Audit, error: BaseException | None = None, **given: Any) -> None:
    audit.record(Entry(CALLER, vault("qga-lock"), given), error)


def test_a_change_is_logged_with_all_facts_in_fields_and_in_one_line(
    audit: Audit, sink: Sink
) -> None:
    lock(audit, door="front")
    [(priority, text, fields)] = sink.entries
    assert priority == INFO
    assert text.startswith('channel main (pid 7, uid 0): qga-lock {"door":"front"}: done (0.0')
    assert int(fields.pop("duration_usec")) >= 0
    assert fields == {
        "MESSAGE_ID": MESSAGE_IDS["command"],
        "command": "qga-lock",
        "channel": "main",
        "peer": "pid 7, uid 0",
        "arguments": '{"door":"front"}',
        "result": "success",
    }


def test_a_look_is_logged_at_debug(audit: Audit, sink: Sink) -> None:
    audit.record(Entry(CALLER, vault("qga-look"), {}), None)
    assert sink.entries[0][0] == DEBUG


def test_a_failure_is_logged_with_its_reason(audit: Audit, sink: Sink) -> None:
    lock(audit, QgaError("it is\nopen"), door="front")
    _, text, fields = sink.entries[0]
    assert "failed: it is\\nopen" in text
    assert (fields["result"], fields["error"]) == ("GenericError", "it is\\nopen")


def test_a_refusal_is_a_warning_without_arguments(audit: Audit, sink: Sink) -> None:
    audit.record_refusal(CALLER, "qga-lock", vault("qga-lock"), CommandNotFound("it is off"))
    audit.record_refusal(CALLER, "qga-lock", vault("qga-lock"), QgaError("'hunter2' is invalid"))
    audit.record_refusal(CALLER, "x" * 10_000, None, CommandNotFound("x" * 10_000))
    (priority, text, fields), misfit, unknown = sink.entries
    assert priority == WARNING
    assert text == "channel main (pid 7, uid 0): qga-lock refused: it is off"
    assert fields == {
        "MESSAGE_ID": MESSAGE_IDS["refused"],
        "command": "qga-lock",
        "channel": "main",
        "peer": "pid 7, uid 0",
        "result": "CommandNotFound",
        "error": "it is off",
    }
    assert "hunter2" not in str(misfit)
    assert len(unknown[1]) < 500


def test_no_secret_is_logged_also_where_an_error_quotes_it(audit: Audit, sink: Sink) -> None:
    lock(
        audit,
        QgaError("'hunter2' is weak, and s3cret known"),
        door="front",
        password="hunter2",
        env=["PATH=/bin", "TOKEN=s3cret=", "TOKEN=s3cret", "odd"],
    )
    assert "hunter2" not in str(sink.entries)
    assert "s3cret" not in str(sink.entries)
    assert sink.entries[0][2]["arguments"] == (
        '{"door":"front","password":"(hidden)",'
        '"env":["PATH=(hidden)","TOKEN=(hidden)","TOKEN=(hidden)","(hidden)"]}'
    )


def test_of_several_lines_the_journal_shows_the_first(audit: Audit, sink: Sink) -> None:
    lock(audit, door=["-c", "\n# copy\nset -e\ncat\n", "front\n"])
    lock(audit, door="front")
    (_, text, fields), (_, _, short) = sink.entries
    assert fields["arguments"] in text
    assert fields["arguments"] == '{"door":["-c","\\n# copy\\nset -e\\ncat\\n","front\\n"]}'
    assert fields["brief"] == '{"door":["-c","# copy …","front\\n"]}'
    assert "brief" not in short


def test_megabytes_of_arguments_are_cut(audit: Audit, sink: Sink) -> None:
    lock(audit, door=["x" * 10_000_000] * 3)
    assert len(sink.entries[0][2]["arguments"]) == MAX_ARGUMENTS + 1


def test_a_failure_that_quotes_megabytes_is_cut(audit: Audit, sink: Sink) -> None:
    """journald drops an entry of megabytes, so a host could keep a failed attempt from the log."""
    path = "/" + "x" * 3_000_000
    lock(audit, QgaError(f"failed to open file '{path}'"), door=path)
    _, text, fields = sink.entries[0]
    assert len(fields["error"]) == MAX_ARGUMENTS + 1
    assert text.endswith("x… (0.000 s)")


def test_long_base64_is_cut_without_making_its_text(
    audit: Audit, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(30_000)
    monkeypatch.delattr(Base64, "__str__")
    lock(audit, door=Base64("", bytearray(data)))
    begin = b64encode(data).decode()[: MAX_ARGUMENTS - 100]
    assert sink.entries[0][2]["arguments"].startswith(f'{{"door":"{begin}')


@pytest.mark.parametrize("secret", ["hunter2", "h\nu'n\\ter\t2", "hünter2", "🔑ter" * 30])
@pytest.mark.parametrize(
    "form", [str, repr, ascii, lambda secret: repr(secret.encode()), lambda secret: secret * 2]
)
@pytest.mark.parametrize("in_base64", [str, Base64])
def test_a_secret_is_hidden_in_each_form_that_an_error_quotes(
    audit: Audit, sink: Sink, secret: str, form: Callable[[str], str], in_base64: type
) -> None:
    lock(audit, QgaError(f"{form(secret)} is weak"), password=secret)
    encoded = in_base64(b64encode(secret.encode()).decode())
    lock(audit, QgaError(f"{form(secret)} is weak, {encoded} too"), password=encoded)
    for _, text, fields in sink.entries:
        assert "(hidden)" in fields["error"]
        assert "ter" not in text
        assert "ter" not in fields["error"]
        assert str(encoded) not in text


def test_a_secret_in_lines_of_base64_is_hidden_where_an_error_quotes_it(
    audit: Audit, sink: Sink
) -> None:
    secret = "🔑" * 200
    lock(audit, QgaError(secret), password=encodebytes(secret.encode()).decode())
    assert sink.entries[0][2]["error"] == "(hidden)"


def test_long_base64_is_hidden_where_an_error_quotes_it(audit: Audit, sink: Sink) -> None:
    data = os.urandom(300)
    error = QgaError(f"'{b64encode(data).decode()}' is weak")
    lock(audit, error, password=Base64("", bytearray(data)))
    assert sink.entries[0][2]["error"] == "'(hidden)' is weak"


def test_arguments_of_many_levels_are_cut(audit: Audit, sink: Sink) -> None:
    deep: Any = "bottom"
    for _ in range(5000):
        deep = [deep]
    lock(audit, door=deep)
    assert sink.entries[0][2]["arguments"] == '{"door":[[[[[[["…"]]]]]]]}'


class Clock:
    """Stands still, however long the entries take."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("qga.serving.audit.time", clock)
    monkeypatch.setattr("qga.serving.audit.WINDOW", 0.2)
    return clock


def logged(sink: Sink, kind: str) -> list[str]:
    return [text for _, text, fields in sink.entries if fields["MESSAGE_ID"] == MESSAGE_IDS[kind]]


def test_every_change_is_logged_however_many(audit: Audit, sink: Sink, clock: Clock) -> None:
    for _ in range(3 * MAX_BURST):
        lock(audit, door="front")
        lock(audit, QgaError("it is open"), door="back")
    assert len(logged(sink, "command")) == 6 * MAX_BURST
    assert logged(sink, "left-out") == []


def test_a_flood_of_refusals_is_cut_and_counted(
    audit: Audit, sink: Sink, loop: Loop, clock: Clock
) -> None:
    for _ in range(MAX_BURST + 5):
        audit.record_refusal(CALLER, "qga-lock", vault("qga-lock"), CommandNotFound("it is off"))
    lock(audit, door="front")
    assert (len(logged(sink, "refused")), len(logged(sink, "command"))) == (MAX_BURST, 1)
    loop.call_later(0.3, loop.stop)
    loop.run()
    clock.now += 0.3
    priority, text, fields = sink.entries[-1]
    assert (priority, text) == (WARNING, "channel main: refused: qga-lock: 5 more within 0 s")
    assert fields == {
        "MESSAGE_ID": MESSAGE_IDS["left-out"],
        "channel": "main",
        "left_out": "5",
    }
    audit.record_refusal(CALLER, "qga-lock", vault("qga-lock"), CommandNotFound("it is off"))
    assert len(logged(sink, "refused")) == MAX_BURST + 1


def test_the_number_of_the_others_is_logged_at_their_level(
    audit: Audit, sink: Sink, loop: Loop, clock: Clock
) -> None:
    """Else a large file that is written, or a client that looks often, would be a warning."""
    for _ in range(MAX_BURST + 5):
        audit.record(Entry(CALLER, vault("qga-put"), {"drawer": 1}), None)
        audit.record(Entry(CALLER, vault("qga-look"), {}), None)
        audit.record_fault(CALLER, QgaError("stray"))
    loop.call_later(0.3, loop.stop)
    loop.run()
    others = [(priority, text) for priority, text, _ in sink.entries if "5 more within" in text]
    assert others == [
        (INFO, "channel main: qga-put 1: 5 more within 0 s"),
        (DEBUG, "channel main: qga-look: 5 more within 0 s"),
        (DEBUG, "channel main: not a request: 5 more within 0 s"),
    ]


@pytest.mark.parametrize("name", ["qga-lock", "qga-nothing"])
def test_no_channel_hides_the_refusals_or_looks_of_another(
    audit: Audit, sink: Sink, clock: Clock, name: str
) -> None:
    command = vault(name) if name == "qga-lock" else None
    other = Caller("other", Policy())
    for caller in [CALLER] * (2 * MAX_BURST) + [other]:
        audit.record_refusal(caller, name, command, CommandNotFound("no"))
        audit.record(Entry(caller, vault("qga-look"), {}), None)
    for kind in ("refused", "command"):
        texts = logged(sink, kind)
        assert len(texts) == MAX_BURST + 1
        assert texts[-1].startswith("channel other: ")


def test_of_many_writes_to_a_file_the_others_are_counted(
    audit: Audit, sink: Sink, clock: Clock
) -> None:
    """Each opening is logged; of the writes to a handle, the first ones and their number."""
    write = vault("qga-put")
    for drawer in (1, 2):
        for _ in range(2 * MAX_BURST):
            audit.record(Entry(CALLER, write, {"drawer": drawer}), None)
    for drawer in range(MAX_BURST * 2):
        audit.record(Entry(CALLER, write, {"drawer": drawer}), QgaError("there is none"))
    texts = logged(sink, "command")
    assert [
        f'{{"drawer":{drawer}}}: done' in texts[MAX_BURST * at] for at, drawer in ((0, 1), (1, 2))
    ]
    assert len(texts) == 3 * MAX_BURST


def test_what_was_limited_is_forgotten(audit: Audit, sink: Sink, clock: Clock) -> None:
    for drawer in range(5000):
        clock.now += 0.1
        audit.record(Entry(CALLER, vault("qga-put"), {"drawer": drawer}), None)
    assert len(logged(sink, "command")) == 5000
    assert len(audit._limit._windows) <= 1000


@pytest.mark.parametrize(
    ("verbose", "expected"),
    [(False, (False, True)), (True, (True, True))],
)
def test_what_the_log_does_not_keep_is_not_made(
    sink: Sink, loop: Loop, verbose: bool, expected: tuple[bool, bool]
) -> None:
    audit = Audit(Log(sink, verbose=verbose), loop)
    assert (audit.reads, audit.changes) == expected


# By the interface: what leaves nothing behind that was not there before.
READING = {
    "guest-exec-status",
    "guest-file-close",
    "guest-file-flush",
    "guest-file-read",
    "guest-file-seek",
    "guest-fsfreeze-status",
    "guest-info",
    "guest-ping",
    "guest-sync",
    "guest-sync-delimited",
    "qga-exec-read",
    # Input of a running program, whose start was logged.
    "qga-exec-resize",
    "qga-exec-write",
    # What passes through connections, each of which was logged.
    "qga-tunnel-close",
    "qga-tunnel-exchange",
}
SECRET = {
    "guest-exec": ("input-data", "env="),
    "guest-file-write": ("buf-b64",),
    "guest-set-user-password": ("password",),
    "guest-ssh-add-authorized-keys": ("keys",),
    "guest-ssh-remove-authorized-keys": ("keys",),
    "qga-resync": ("entropy",),
    "qga-set-identity": ("entropy",),
    "qga-exec": ("env=",),
    "qga-grow-filesystem": ("passphrase",),
    "qga-exec-write": ("buf-b64",),
    "qga-tunnel-exchange": ("buf-b64",),
}


def test_which_standard_commands_change_something_and_which_arguments_are_secret() -> None:
    groups = discover(None, pytest.fail)
    commands = {name: traits for group in groups for name, _, traits in commands_of(group)}
    reading = {name for name, traits in commands.items() if not traits.changes}
    assert {name for name in reading if "-get-" not in name} == READING
    assert not {name for name in commands if "-get-" in name} - reading
    assert {name: traits.secret for name, traits in commands.items() if traits.secret} == SECRET
