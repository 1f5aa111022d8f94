"""What is made from the interface is current and true."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from qga_docs import examples, interface, pages, qgactl_page, tables
from qga_docs.examples import Pattern

from qga.explain import explain
from qga.policy.policy import Policy
from qga.settings import config, configfile, options
from qga.settings.patterns import compile_path, compile_program, split_rules

CHECKOUT = Path(__file__).parent.parent.parent


def test_the_table_of_commands_is_current() -> None:
    text = (CHECKOUT / "docs/commands.md").read_text()
    assert text == tables.commands_page(), "run `make docs`"


def test_what_qgactl_knows_of_arguments_is_current() -> None:
    text = (CHECKOUT / "qga/ctl/arguments.py").read_text()
    assert text == tables.arguments_module(), "run `make docs`"


def test_what_the_agent_knows_of_the_standard_commands_is_current() -> None:
    text = (CHECKOUT / "qga/plugin/standard.py").read_text()
    assert text == tables.standard_module(), "run `make docs`"


def test_every_key_is_in_the_configuration_that_is_shipped() -> None:
    shown = re.findall(r"^#([a-z-]+)=", tables.configuration().partition("#[")[0], re.M)
    assert shown == list(config.GENERAL_KEYS)


def test_the_configuration_that_is_shipped_says_nothing() -> None:
    read = configfile.parse(tables.configuration(), "qemu-ga.conf")
    assert read == configfile.ConfigFile({}, (), ())


def test_the_configuration_with_its_comments_taken_off_says_the_defaults() -> None:
    text = re.sub("^#(?=[a-z-]+=)", "", tables.configuration().partition("#[")[0], flags=re.M)
    read = configfile.parse(text, "qemu-ga.conf")
    assert read.warnings == ()
    set_by_default = {key.name for key in interface.general_keys() if key.default is not None}
    defaults = {key: value for key, value in read.general.items() if key in set_by_default}
    assert config.build(defaults, ()) == config.build({}, ())


def roff_name(text: str) -> str:
    return text.replace("-", "\\-")


def test_the_agents_page_has_every_option_and_command() -> None:
    page = pages.qemu_ga("2026-01-01")
    for option in options.OPTIONS:
        if option.help:
            assert not option.short or f"\\fB{roff_name('-' + option.short)}\\fR, " in page
            assert f"\\fB{roff_name('--' + option.long)}\\fR" in page
    for command in interface.commands():
        assert f"\\fB{roff_name(command.name)}\\fR" in page


def test_the_configurations_page_has_every_key() -> None:
    page = pages.qemu_ga_conf("2026-01-01")
    for key in (*config.GENERAL_KEYS, *(key for keys in config.RULE_KEYS.values() for key in keys)):
        assert f".TP\n\\fB{roff_name(key)}\\fR" in page


@pytest.mark.parametrize("lines", [lines for _, lines in examples.COMMAND_LINES])
def test_the_command_lines_in_the_manual_are_valid(lines: str) -> None:
    for line in lines.splitlines():
        program, *arguments = shlex.split(line.partition(" >")[0])
        assert program == "qemu-ga"
        parsed = options.parse(arguments)
        assert parsed.warnings == ()
        known = {command.name for command in interface.commands()}
        assert known >= {*parsed.settings.get("block-rpcs", ())}  # type: ignore[misc]
        config.build(parsed.settings)
        if parsed.question is not None:
            command, words, channel = parsed.question
            assert explain(config.Config(), channel, command, words).text


@pytest.mark.parametrize("text", [text for _, text in examples.CONFIGURATIONS])
def test_the_configurations_in_the_manual_are_valid(text: str) -> None:
    read = configfile.parse(text, "qemu-ga.conf")
    assert read.warnings == ()
    built = config.build(read.general, read.channels, read.origins)
    assert built != config.Config()
    for channel in built.channels:
        Policy(channel)


@pytest.mark.parametrize("pattern", examples.PATHS, ids=lambda pattern: pattern.text)
def test_the_patterns_of_paths_in_the_manual_match_what_it_says(pattern: Pattern) -> None:
    compiled = compile_path(pattern.text)
    assert compiled.fullmatch(pattern.yes)
    assert not compiled.fullmatch(pattern.no)
    assert pattern.text in manual_text(pages.qemu_ga_conf("2026-01-01"))


@pytest.mark.parametrize("pattern", examples.PROGRAMS, ids=lambda pattern: pattern.text)
def test_the_rules_of_programs_in_the_manual_match_what_it_says(pattern: Pattern) -> None:
    (rule,) = split_rules(pattern.text)
    compiled = compile_program(rule)
    for line, expected in ((pattern.yes, True), (pattern.no, False)):
        path, *arguments = shlex.split(line)
        assert compiled.allows(path, arguments) is expected
    assert pattern.text in manual_text(pages.qemu_ga_conf("2026-01-01"))


def test_the_manual_warns_that_arguments_are_not_resolved() -> None:
    rule = compile_program("/usr/bin/cat /var/log/*")
    assert rule.allows("/usr/bin/cat", ["/var/log/../../etc/shadow"])
    assert "matches / and, with it, .. in paths" in manual_text(pages.qemu_ga_conf("2026-01-01"))


def test_an_exclusion_matches_slashes_as_the_manual_says() -> None:
    (text,) = (text for _, text in examples.CONFIGURATIONS if "fsfreeze-exclude" in text)
    excluded = configfile.parse(text, "qemu-ga.conf").general["fsfreeze-exclude"]
    assert "/var/lib/docker/**" in excluded  # type: ignore[operator]
    assert fnmatchcase("/var/lib/docker/overlay2/x/merged", "/var/lib/docker/**")
    assert fnmatchcase("/srv/a/b", "/srv/*")


LINTS = (["man", "--warnings", "--encoding=utf8", "--local-file"], ["mandoc", "-Tlint"])


@pytest.mark.parametrize("lint", LINTS, ids=lambda lint: lint[0])
@pytest.mark.parametrize("name", ["qemu-ga.8", "qemu-ga.conf.5"])
def test_the_manual_pages_are_formatted_without_warnings(
    name: str, lint: list[str], tmp_path: Path
) -> None:
    if shutil.which(lint[0]) is None:
        pytest.skip(f"{lint[0]} is not installed")
    make = pages.qemu_ga if name == "qemu-ga.8" else pages.qemu_ga_conf
    (tmp_path / name).write_text(make("2026-01-01"))
    done = subprocess.run([*lint, tmp_path / name], capture_output=True, text=True, check=False)
    assert (done.stderr if lint[0] == "man" else done.stdout) == ""


def manual_text(page: str) -> str:
    """The text of a page without roff's escapes."""
    for escape, character in (("\\-", "-"), ("\\(aq", "'"), ("\\fB", ""), ("\\fR", "")):
        page = page.replace(escape, character)
    return page.replace("\n", " ")


def test_the_page_of_qgactl_has_every_command_and_option() -> None:
    page = qgactl_page.qgactl("2026-01-01")
    program = interface.qgactl()
    assert {command.name for command in program.commands} >= {"ping", "info", "call", "exec"}
    for part in (program, *program.commands):
        for option in part.options:
            assert all(f"\\fB{roff_name(flag)}\\fR" in page for flag in option.flags)
    assert all(f'.SS "qgactl {roff_name(command.name)}"' in page for command in program.commands)


def test_the_page_of_qgactl_has_what_a_page_has() -> None:
    page = qgactl_page.qgactl("2026-01-01")
    titles = ["NAME", "SYNOPSIS", "OPTIONS", "COMMANDS", "ENVIRONMENT", "FILES", "EXIT STATUS"]
    assert [title for title in titles if f'.SH "{title}"' not in page] == []
    assert "Default: 16M." in page
    assert "qgactl exec [OPTIONS] [GUEST]... \\-\\- PROGRAM [ARG]..." in page
    variables = set(re.findall(r"environ(?:\.get\(|\[)\"([A-Z_]+)\"", sources_of_the_host()))
    assert variables - {"TERM", "XDG_RUNTIME_DIR"} <= set(qgactl_page.ENVIRONMENT)


def sources_of_the_host() -> str:
    rooms = (CHECKOUT / "qga/ctl", CHECKOUT / "qga/client")
    return "".join(path.read_text() for room in rooms for path in room.rglob("*.py"))


def test_the_page_of_qgactl_is_roff_without_faults(tmp_path: Path) -> None:
    (tmp_path / "qgactl.1").write_text(qgactl_page.qgactl("2026-01-01"))
    done = subprocess.run(
        ["man", "--warnings", "--local-file", str(tmp_path / "qgactl.1")],
        env={"PATH": os.environ["PATH"], "MANWIDTH": "80", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "qgactl cp [OPTIONS] SOURCE... DESTINATION" in done.stdout


@pytest.mark.parametrize("command", interface.commands(), ids=lambda command: command.name)
def test_every_command_says_what_it_does(command: interface.CommandInfo) -> None:
    assert command.summary.endswith((".", "?"))
