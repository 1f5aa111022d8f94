"""What qgactl writes, when the guest means harm to the terminal."""

from __future__ import annotations

import errno
import json

import pytest

from qga.client import AgentError, AgentInfo, CommandInfo, ExecResult, Release
from qga.client.texts import reason_of
from qga.ctl.call import parse_value
from qga.ctl.display import (
    compact_json,
    exec_json,
    pretty_json,
    printable,
    report_truncated,
    show_info,
    show_table,
)

HOSTILE = "[red]x[/red]\x1b[2J\x7f\x9b\n\u202e:smile:"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ä 漢", "plain ä 漢"),
        ("a\nb\r", "a\\nb\\r"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x7f\x9b", "\\x7f\\x9b"),
        ("\u202eevil", "\\u202eevil"),
        ("\ud800", "\\ud800"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_pretty_json_is_unicode_without_control_characters() -> None:
    shown = pretty_json({"ä": HOSTILE, "tag": "\U000e0041"})
    assert json.loads(shown) == {"ä": HOSTILE, "tag": "\U000e0041"}
    assert all(line.isprintable() for line in shown.split("\n"))
    assert shown.startswith('{\n  "ä": "[red]x[/red]\\u001b[2J\\u007f\\u009b\\n\\u202e:smile:"')


def test_compact_json_is_one_line_of_printable_ascii() -> None:
    shown = compact_json({"a": [1, HOSTILE, "ä"]})
    assert json.loads(shown) == {"a": [1, HOSTILE, "ä"]}
    assert shown.isascii()
    assert shown.isprintable()
    assert shown.startswith('{"a":[1,"[red]')


def test_the_table_shows_names_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    commands = (CommandInfo(HOSTILE, True, True), CommandInfo("guest-ping", False, False))
    show_info("unix:/s", AgentInfo("[b]1\x1b", commands), Release("2\x1b", "3"))
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "unix:/s: agent [b]1\\x1b (qga 2\\x1b), 2 commands, 1 disabled",
        "Command                                      State      Replies on success",
        "──────────────────────────────────────────────────────────────────────────",
        "[red]x[/red]\\x1b[2J\\x7f\\x9b\\n\\u202e:smile:   enabled    yes",
        "guest-ping                                   DISABLED   no",
    ]


def test_a_program_that_reads_the_table_gets_names_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    show_info("unix:/s", AgentInfo("1", (CommandInfo("x" * 100, True, True),)), None)
    assert capsys.readouterr().out.splitlines()[-1] == "x" * 100 + "   enabled   yes"


def test_truncated_output_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    report_truncated(ExecResult(0, None, b"out", b"err\n", False, True))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == (
        "qgactl: the program's stderr may be incomplete: the agent did not keep all of it\n"
    )


def test_on_a_narrow_terminal_long_columns_fold_and_lose_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")  # for rich, a dumb one has 80 columns
    monkeypatch.setenv("COLUMNS", "20")
    show_table(["A", "B", "C"], [["web", "silent", "x" * 30]], folding=("A", "C"))
    lines = capsys.readouterr().out.splitlines()[2:]
    assert all(len(line) <= 20 for line in lines)
    assert "".join(lines).count("x") == 30
    assert "silent" in lines[0]


def test_the_result_of_exec_as_json() -> None:
    assert exec_json(ExecResult(None, 9, b"\xff", b"", False, False)) == {
        "signal": 9,
        "out-data": "/w==",
        "out-truncated": False,
        "err-data": "",
        "err-truncated": False,
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-3", -3),
        ("true", True),
        ("null", None),
        ('["-l", 1]', ["-l", 1]),
        ('{"a": "b"}', {"a": "b"}),
        ('"123"', "123"),
        ("", ""),
        ("/etc/hosts", "/etc/hosts"),
        ("True", "True"),
        ("NaN", "NaN"),
        ("1e999", "1e999"),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_values_of_call_are_json_or_text(text: str, value: object) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Cannot allocate memory"),
        (OSError("no such interface"), "no such interface"),
        (MemoryError(), "Cannot allocate memory"),
        (RuntimeError("can't start new thread"), "can't start new thread"),
        (AgentError("it is gone", address="web"), "web: it is gone"),
        (KeyError("x"), "KeyError: 'x'"),  # a fault of this program
        (RecursionError("maximum depth"), "RecursionError: maximum depth"),
        (TimeoutError(), "TimeoutError"),
        (EOFError(), "EOFError"),
    ],
)
def test_an_error_is_reported_in_the_words_of_the_system(error: Exception, text: str) -> None:
    assert reason_of(error) == text


def test_an_error_of_a_descriptor_has_no_name() -> None:
    assert reason_of(OSError(errno.EIO, "Input/output error", 7)) == "Input/output error"
    assert reason_of(OSError(errno.EIO, "Input/output error", b"/a")) == "/a: Input/output error"
