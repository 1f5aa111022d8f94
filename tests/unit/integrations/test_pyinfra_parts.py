"""The parts of the connector for pyinfra that need no guest."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest

from qga.client import AgentError, AgentTimeout, Summary
from qga.client.errors import CopyError, ProgramTimeout
from qga.client.results import ExecResult

pytest.importorskip("pyinfra", reason="pyinfra needs Python 3.10")

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
    ],
)
def test_errors_are_those_that_pyinfra_reports(
    error: AgentError, expected: type[OSError], text: str
) -> None:
    with pytest.raises(expected) as raised, pyinfra.errors_of_pyinfra():
        raise error
    assert type(raised.value) is expected
    assert text in str(raised.value)


def test_a_copy_that_skipped_files_is_not_complete() -> None:
    summary = Summary(1, 0, 0, 0, 5, 0.1, None, [("/a", "is a FIFO"), ("/b", "is a device")], [])
    with pytest.raises(CopyError, match=r"/a: is a FIFO \(and 1 more\)"):
        summary.require_all()
    complete = summary._replace(skipped=[])
    assert complete.require_all() is complete
