"""The command line is read as getopt_long reads it."""

from __future__ import annotations

import pytest

from qga.errors import ConfigError
from qga.settings import config, options
from qga.settings.config import GENERAL_KEYS


def settings(line: str) -> dict[str, object]:
    return dict(options.parse(line.split()).settings)


@pytest.mark.parametrize(
    ("line", "result"),
    [
        ("-m isa-serial", {"method": "isa-serial"}),
        ("--method isa-serial", {"method": "isa-serial"}),
        ("--method=isa-serial", {"method": "isa-serial"}),
        ("--me=isa-serial", {"method": "isa-serial"}),
        ("-p /x", {"path": "/x"}),
        ("-p/x", {"path": "/x"}),
        ("--path=", {"path": ""}),
        ("-l /x", {"logfile": "/x"}),
        ("--logfile /x", {"logfile": "/x"}),
        ("-f /x", {"pidfile": "/x"}),
        ("--pidfile /x", {"pidfile": "/x"}),
        ("-F", {"fsfreeze-hook": "/etc/qemu/fsfreeze-hook"}),
        ("-F/x", {"fsfreeze-hook": "/x"}),
        ("-F /x", {"fsfreeze-hook": "/etc/qemu/fsfreeze-hook"}),
        ("--fsfreeze-hook /x", {"fsfreeze-hook": "/etc/qemu/fsfreeze-hook"}),
        ("--fsfreeze-hook=/x", {"fsfreeze-hook": "/x"}),
        ("-t /x", {"statedir": "/x"}),
        ("--statedir /x", {"statedir": "/x"}),
        ("-v", {"verbose": True}),
        ("--verbose -v", {"verbose": True}),
        ("-d", {"daemon": True}),
        ("--daemonize", {"daemon": True}),
        ("-r", {"retry-path": True}),
        ("--retry-path", {"retry-path": True}),
        ("-b a,b -b c", {"block-rpcs": ("a", "b", "c")}),
        ("--block-rpcs a --b b", {"block-rpcs": ("a", "b")}),
        ("-b help,x", {"block-rpcs": ("help", "x")}),
        ("-a a --allow-rpcs=b", {"allow-rpcs": ("a", "b")}),
        ("-s install", {}),
        ("-dvrp/x", {"daemon": True, "verbose": True, "retry-path": True, "path": "/x"}),
        ("x -v y", {"verbose": True}),
        ("- -v", {"verbose": True}),
        ("-v -- -d", {"verbose": True}),
        ("-p -v", {"path": "-v"}),
        ("-p --", {"path": "--"}),
        ("-p a -p b", {"path": "b"}),
    ],
)
def test_settings(line: str, result: dict[str, object]) -> None:
    assert settings(line) == result


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--x", "unrecognized option '--x'"),
        ("--x=1", "unrecognized option '--x=1'"),
        ("---", "unrecognized option '---'"),
        ("-Z", "invalid option -- 'Z'"),
        ("-vZ", "invalid option -- 'Z'"),
        ("-?", "invalid option -- '?'"),
        ("-m", "option requires an argument -- 'm'"),
        ("-Db", "option requires an argument -- 'b'"),
        ("--method", "option '--method' requires an argument"),
        ("--meth", "option '--method' requires an argument"),
        ("--version=3", "option '--version' doesn't allow an argument"),
        ("--verb=3", "option '--verbose' doesn't allow an argument"),
        ("--p=x", "option '--p=x' is ambiguous; possibilities: '--path' '--pidfile'"),
        ("--ve", "option '--ve' is ambiguous; possibilities: '--verbose' '--version'"),
        ("-v -m isa-serial -Z -V", "invalid option -- 'Z'"),
    ],
)
def test_errors_are_worded_as_by_getopt(line: str, message: str) -> None:
    with pytest.raises(options.OptionError) as caught:
        options.parse(line.split())
    assert str(caught.value) == message


def test_the_empty_name_is_every_option() -> None:
    with pytest.raises(options.OptionError, match=r"^option '--=x' is ambiguous; poss.*'--method'"):
        options.parse(["--=x"])


@pytest.mark.parametrize(
    ("line", "action"),
    [
        ("", "serve"),
        ("-V -Z", "version"),
        ("--vers", "version"),
        ("-h -Z", "help"),
        ("-D --help", "help"),
        ("-D", "dump-conf"),
        ("--dump-conf", "dump-conf"),
        ("-b help", "list-commands"),
        ("-b?", "list-commands"),
        ("--blacklist=?", "list-commands"),
        ("-a help", "list-commands"),
    ],
)
def test_actions(line: str, action: str) -> None:
    assert options.parse(line.split()).action == action


def test_the_last_configuration_file_counts() -> None:
    assert options.parse(["-c", "a", "--config=b"]).config_path == "b"
    assert options.parse([]).config_path is None


def test_the_old_spelling_works_with_a_warning() -> None:
    arguments = options.parse(["--blacklist", "a", "-b", "b"])
    assert arguments.settings == {"block-rpcs": ("a", "b")}
    assert arguments.warnings == (
        "the option '--blacklist' is deprecated, use '--block-rpcs' instead",
    )


def test_an_invalid_value_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^unsupported channel method/type: foo .use one of virt"
    ):
        options.parse(["-m", "foo"])


def test_every_option_sets_an_existing_key() -> None:
    assert {option.key for option in options.OPTIONS if option.key} <= set(GENERAL_KEYS)


def test_help_shows_every_option_that_is_not_hidden() -> None:
    lines = options.format_help().splitlines()
    shown = [line for line in lines if line.lstrip().startswith("-")]
    assert len(shown) == len([option for option in options.OPTIONS if option.help])
    assert max(map(len, lines)) < 80


def test_defaults_in_the_help_have_one_form() -> None:
    text = options.format_help()
    for value in (config.DEFAULT_METHOD, config.DEFAULT_STATEDIR, "main"):
        assert f"(default: {value})" in text
    assert "(default: /dev/virtio-ports/org.qemu.guest_agent.0" in text
    assert text.count("default") == text.count("(default: ")


def test_clients_find_the_hook_in_the_help() -> None:
    """They take the last word of its line, less the parenthesis."""
    (line,) = [each for each in options.format_help().splitlines() if "fsfreeze-hook" in each]
    assert line.split()[-1].rstrip(")") == config.DEFAULT_FSFREEZE_HOOK


def test_a_question_to_the_policy() -> None:
    argv = ["--explain-policy", "guest-exec", "path=x", "-c", "conf", "--", "--arg=1"]
    asked = options.parse(argv)
    assert (asked.action, asked.config_path) == ("explain-policy", "conf")
    assert asked.question == ("guest-exec", ("path=x", "--arg=1"), "main")
    on_channel = options.parse(["--explain=guest-ping", "--on", "narrow"]).question
    assert on_channel == ("guest-ping", (), "narrow")
    assert options.parse(["operand"]).question is None
