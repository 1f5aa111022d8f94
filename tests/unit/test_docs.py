"""What is made from the interface is current and true."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from qga_docs import interface, pages, qgactl_page, tables

from qga.settings import config, configfile, options

CHECKOUT = Path(__file__).parent.parent.parent


def test_the_table_of_commands_is_current() -> None:
    text = (CHECKOUT / "docs/commands.md").read_text()
    assert text == tables.commands_page(), "run `make docs`"


def test_what_qgactl_knows_of_arguments_is_current() -> None:
    text = (CHECKOUT / "qga/ctl/arguments.py").read_text()
    assert text == tables.arguments_module(), "run `make docs`"


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
    assert "qgactl exec [OPTIONS] [GUEST] \\-\\- PROGRAM [ARG]..." in page
    variables = set(re.findall(r"environ(?:\.get\(|\[)\"([A-Z_]+)\"", sources_of_the_host()))
    assert variables - {"TERM", "XDG_RUNTIME_DIR", "PATH_INFO"} <= set(qgactl_page.ENVIRONMENT)


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
