"""Wrong usage of every command, in our own words, whatever typer converts arguments with."""

from __future__ import annotations

import inspect
import re
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from qga.ctl.cli import app
from qga.ctl.usage import UsageError, command_of, sentence

COMMAND = command_of(app)
COMMANDS = {"": COMMAND, **COMMAND.commands}

FOREIGN = re.compile(
    r"Value error|Input should|unable to parse|Choose from|is not a valid|is not one of|\n"
    r"|<class|\[type=|Missing|list\[|<(str|int|float)|No such|Got |unexpected extra|\(s\)"
    r"|Possible options|requires an argument",
)


def kind_of(command: Any, parameter: Any) -> Any:
    declared = inspect.signature(inspect.unwrap(command.callback)).parameters[parameter.name]
    kinds = [kind for kind in get_args(declared.annotation) if kind is not type(None)]
    return kinds[0] if kinds else declared.annotation


def is_converted(kind: Any) -> bool:
    return kind in (int, float) or (isinstance(kind, type) and issubclass(kind, Enum))


CONVERTED = [
    (name, parameter)
    for name, command in COMMANDS.items()
    for parameter in command.params
    if is_converted(kind_of(command, parameter))
]

DEMANDING = [
    name for name, command in COMMANDS.items() if name and any(p.required for p in command.params)
]


def complaint(*arguments: str) -> str:
    with pytest.raises(UsageError) as caught:
        COMMAND(list(arguments), prog_name="qgactl", standalone_mode=False)
    return sentence(caught.value)


def test_there_are_such_parameters() -> None:
    assert {"--output", "--count", "--number"} <= {
        option for _, parameter in CONVERTED for option in parameter.opts
    }
    assert {"ssh-keys", "suspend", "cp"} <= {name for name, _ in CONVERTED} | set(DEMANDING)


@pytest.mark.parametrize(
    ("name", "parameter"), CONVERTED, ids=lambda each: getattr(each, "name", each)
)
def test_a_value_that_cannot_be_converted(name: str, parameter: Any) -> None:
    """The message names the value and the parameter, and says what would be right."""
    words = [name] if name else []
    if parameter.param_type_name == "option":
        given, shown = [parameter.opts[-1], "bad\nvalue"], max(parameter.opts, key=len)
    else:
        given, shown = ["bad\nvalue"], (parameter.metavar or parameter.name.upper()).strip("[]")
    said = complaint(*words, *given, *([] if name else ["list"]))
    assert said.startswith(f"invalid value 'bad value' for {shown}: use "), said
    assert not FOREIGN.search(said)


@pytest.mark.parametrize("name", DEMANDING)
def test_an_argument_that_is_missing(name: str) -> None:
    said = complaint(name)
    assert said.startswith("missing argument "), said
    assert said.endswith(f" (see qgactl {name} --help)")
    assert not FOREIGN.search(said)


def test_what_would_be_right() -> None:
    assert complaint("ping", "--count", "0") == (
        "invalid value '0' for --count: use a whole number of at least 1 (see qgactl ping --help)"
    )
    assert "use one of ram, disk, hybrid, or the name of a guest (" in complaint("suspend", "deep")
    assert "missing argument connect: use connect (" in complaint("port")
    assert complaint("--timeout", "-1", "list") == (
        "invalid value '-1' for --timeout: use a duration greater than 0, such as "
        "90 (seconds), 500ms, 10m or 1h30m, or inf for no limit (see qgactl --help)"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_metavars_and_no_types_of_python(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    COMMAND([*filter(None, [name]), "--help"], prog_name="qgactl", standalone_mode=False)
    text = capsys.readouterr().out
    assert text.strip()
    assert "[[" not in text
    assert not FOREIGN.search(text.replace("\n", " "))


@pytest.mark.parametrize("name", [name for name in COMMAND.commands if name != "help"])
def test_help_as_a_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    COMMAND([name, "--help"], prog_name="qgactl", standalone_mode=False)
    expected = capsys.readouterr().out
    COMMAND(["help", name], prog_name="qgactl", standalone_mode=False)
    assert capsys.readouterr().out == expected


def test_help_of_a_command_that_is_not_there() -> None:
    assert complaint("help", "frob") == "no such command: frob (see qgactl --help)"


def test_our_own_sentences_come_without_a_prefix() -> None:
    assert not issubclass(typer.Exit, UsageError)
    assert complaint("ping").startswith("no guest given: qgactl ping GUEST; ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("ping --foo", "no such option: --foo (see qgactl ping --help)"),
        ("ping --coun 3", "no such option: --coun; did you mean --count"),
        ("-x os", "no such option: -x (see qgactl --help)"),
        ("--count 3 ping", "--count goes after the command: qgactl "),
        ("os web foo", "too many arguments: foo (see qgactl os --help)"),
        ("ping a b c", "too many arguments: b c (see qgactl ping --help)"),
        ("pingg", "no such command: pingg; did you mean ping? (see qgactl --help)"),
        ("web ping -v", "the guest goes after the command: qgactl ping web -v"),
        ("--timeout 5", "no command given (see qgactl --help)"),
        ("ping --count", "option --count needs a value (see qgactl ping --help)"),
        ("ping web --count", "option --count needs a value (see qgactl ping --help)"),
        ("ping -c", "option -c needs a value (see qgactl ping --help)"),
        ("exec web --env FOO -- true", "invalid value 'FOO' for --env: use NAME=VALUE"),
        ("os web --data-port x", "invalid value 'x' for --data-port: use NAME=SOCKET"),
        ("thaw --json=3", "option --json takes no value"),
    ],
)
def test_words_that_are_none_of_ours(words: str, said: str) -> None:
    shown = complaint(*words.split())
    assert shown.startswith(said.partition(", --json")[0])
    assert not FOREIGN.search(shown)


@pytest.mark.parametrize("name", COMMAND.commands)
def test_more_words_than_a_command_takes(name: str) -> None:
    assert complaint(name, "--nonsense").startswith("no such option: --nonsense")


def test_the_help_is_named_only_where_it_helps() -> None:
    assert complaint("exec", "web", "--input", "/nope", "--", "true") == (
        "cannot read /nope: No such file or directory"
    )
    assert complaint("--data-port", "x=/nope", "os", "web").endswith("no socket at this path")


def test_a_broken_configuration_needs_no_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "qgactl.toml").write_text("[guests")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert complaint("ping", "web").startswith(f"{tmp_path}/qgactl.toml: ")
    assert "--help" not in complaint("ping", "web")
