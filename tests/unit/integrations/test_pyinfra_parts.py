"""The parts of the connector for pyinfra that need no guest."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest

from qga.client import AgentError, AgentTimeout, Summary
from qga.client.errors import CopyError, ProgramTimeout
from qga.client.results import ExecResult

pytest.importorskip("pyinfra", reason="pyinfra needs Python 3.10")

from pyinfra.api.exceptions import ConnectError, InventoryError

from qga.integrations import pyinfra, pyinfra_files


def test_output_is_cut_into_lines_however_it_arrives() -> None:
    said: list[str] = []
    connector: Any = SimpleNamespace(say=lambda text, wanted: said.append(text) if wanted else None)
    lines = pyinfra.Lines(connector, print_output=True)
    for data in (b"o", b"ne\ntw", b"o", b"\n", b"\n\xff\nrest"):
        lines.take("stdout", data)
    lines.take("stderr", b"err\n")
    assert said[:4] == ["one", "two", "", "\ufffd"]
    output = lines.end()
    assert output.stdout_lines == ["one", "two", "", "\ufffd", "rest"]
    assert output.stderr_lines == ["err"]
    assert [line.line for line in output] == ["one", "two", "", "\ufffd", "err", "rest"]


def silent_lines() -> pyinfra.Lines:
    return pyinfra.Lines(cast(Any, SimpleNamespace(say=lambda _text, _wanted: None)), False)


def test_lines_beyond_the_most_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyinfra, "MOST_LINES", 3)
    lines = silent_lines()
    for stream, data in (("stdout", b"1\n2\n"), ("stderr", b"3\n\n\n\n5"), ("stdout", b"6\n7")):
        lines.take(stream, data)
    assert lines.end().output_lines == ["1", "2", "3"]
    assert lines.left_out == 6


def test_as_many_lines_as_are_allowed_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyinfra, "MOST_LINES", 2)
    lines = silent_lines()
    lines.take("stdout", b"1\n2\n")
    assert lines.end().output_lines == ["1", "2"]
    assert lines.left_out == 0


def test_newlines_do_not_fill_the_memory() -> None:
    lines = silent_lines()
    tracemalloc.start()
    for _ in range(4):
        lines.take("stdout", b"\n" * 1_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60_000_000
    assert lines.left_out == 3_800_000


@pytest.mark.parametrize(
    ("output", "truncated", "warning"),
    [
        (b"1\n2\n", False, None),
        (b"1", True, "web: the output is too long: its end is missing"),
        (
            b"1\n2\n3\n4",
            False,
            "web: the output is too long: its end is missing; 2 lines came after the first 2",
        ),
    ],
)
def test_output_that_is_too_long_has_a_warning(
    monkeypatch: pytest.MonkeyPatch, output: bytes, truncated: bool, warning: str | None
) -> None:
    def run(*_: Any, watch: Callable[[str, bytes], None], **_ignored: Any) -> ExecResult:
        watch("stdout", output)
        return ExecResult(0, stdout_truncated=truncated)

    said: list[str] = []
    monkeypatch.setattr(pyinfra, "MOST_LINES", 2)
    monkeypatch.setattr("qga.integrations.pyinfra.captured.run", run)
    monkeypatch.setattr("qga.integrations.pyinfra.logger.warning", said.append)
    host = SimpleNamespace(print_prefix="web: ")
    connector: Any = SimpleNamespace(
        agent=None, data={"qga_user": None}, host=host, say=lambda _text, _wanted: None
    )
    pyinfra.QgaConnector._run(connector, "line", None, None, False)
    assert said == ([warning] if warning else [])


@pytest.mark.parametrize(
    ("stdin", "input"),
    [
        (None, None),
        ("line", b"line\n"),
        (["a", "b\n"], b"a\nb\n"),
        (io.StringIO("a\nb"), b"a\nb\n"),
    ],
)
def test_standard_input_is_what_the_other_connectors_make_of_it(stdin: Any, input: bytes) -> None:
    assert pyinfra.input_of(stdin) == input


@pytest.mark.parametrize(
    ("user", "arguments", "is_other", "reader"),
    [
        (None, {}, False, None),
        (None, {"_sudo": False, "_su_user": None}, False, None),
        ("alice", {}, True, "alice"),
        ("alice", {"_sudo": True}, True, None),
        ("alice", {"_sudo": True, "_sudo_user": "bob"}, True, "bob"),
        (None, {"_sudo": True, "_sudo_user": "bob", "_su_user": "carol"}, True, "carol"),
        (None, {"_doas": True, "_doas_user": "bob"}, True, "bob"),
    ],
)
def test_who_reads_a_file_that_is_put(
    user: str | None, arguments: dict[str, Any], is_other: bool, reader: str | None
) -> None:
    connector: Any = SimpleNamespace(data={"qga_user": user})
    assert pyinfra_files.is_other_user(connector, arguments) == is_other
    assert pyinfra_files.reader_of(connector, arguments) == reader


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (ProgramTimeout("web", 3, ExecResult()), TimeoutError, ""),
        (AgentTimeout("web", "guest-exec", 5, "no answer"), OSError, "timed out after 5 s"),
        (CopyError("/srv/a: is a FIFO", address="web"), OSError, "web: /srv/a: is a FIFO"),
        (CopyError("/srv/\x1b[2J", address="web"), OSError, r"web: /srv/\x1b[2J"),
        (ValueError("a program's name has no NUL"), OSError, "a program's name has no NUL"),
    ],
)
def test_errors_are_those_that_pyinfra_reports(
    error: Exception, expected: type[OSError], text: str
) -> None:
    with pytest.raises(expected) as raised, pyinfra.errors_of_pyinfra():
        raise error
    assert type(raised.value) is expected
    assert text in str(raised.value)


def test_the_texts_of_a_guest_that_does_not_answer_are_printable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = AgentError("\x1b[2J", address="web")
    agent = SimpleNamespace(sync=Mock(side_effect=error))
    monkeypatch.setattr(pyinfra, "GuestAgent", Mock(return_value=agent, ping=None))
    connector: Any = SimpleNamespace(data={"qga_timeout": 1, "qga_address": "web"})
    with pytest.raises(ConnectError, match=r"^web: \\x1b\[2J$"):
        pyinfra.QgaConnector.connect(connector)

    said: list[str] = []
    guest = SimpleNamespace(name="web", address="web")
    monkeypatch.setattr(pyinfra, "find_guests", lambda: [guest])
    monkeypatch.setattr(pyinfra, "each", lambda *_: [SimpleNamespace(guest="web", error=error)])
    monkeypatch.setattr("qga.integrations.pyinfra.logger.warning", said.append)
    with pytest.raises(InventoryError):
        list(pyinfra.answering())
    assert said == [r"@qga: web: \x1b[2J"]


def test_a_copy_that_skipped_files_is_not_complete() -> None:
    summary = Summary(1, 0, 0, 0, 5, 0.1, None, [("/a", "is a FIFO"), ("/b", "is a device")], [])
    with pytest.raises(CopyError, match=r"/a: is a FIFO \(and 1 more\)"):
        summary.require_all()
    complete = summary._replace(skipped=[])
    assert complete.require_all() is complete
