"""The documentation: its blocks can be read, its links lead somewhere, its tables are complete."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from qga_docs import interface

import qga
from qga import client
from qga.ctl import address_book
from qga.settings import config, configfile, options
from tests.pages import CHECKOUT, Block, blocks, pages, steps

BLOCKS = [block for page in pages() for block in blocks(page)]
RUN_BY_COMMENT = ("", "run here", "run with the configuration above")

MAKE_TARGETS = set(re.findall(r"^([a-z]+):", (CHECKOUT / "Makefile").read_text(), re.M))


FLAGS = {
    "qemu-ga": {flag for option in interface.qemu_ga().options for flag in option.flags},
    "qgactl": {
        flag
        for program in (interface.qgactl(), *interface.qgactl().commands)
        for option in program.options
        for flag in option.flags
    },
}
SUBCOMMANDS = {command.name for command in interface.qgactl().commands} | {"help"}


def prose(page: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^( *)```.*?^\1```$", "", (CHECKOUT / page).read_text(), flags=re.M | re.S)


def named(block: Block) -> str:
    return block.place


def commands(text: str) -> list[list[str]]:
    """The simple commands of a script, as words; comments are left out."""
    found: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
        lexer.whitespace_split = True
        found.append([])
        redirected = False
        for word in lexer:
            if set(word) <= set("|&;()"):
                found.append([])
            elif not redirected and not set(word) <= set("<>&"):
                found[-1].append(word)
            redirected = set(word) <= set("<>&")
    return [words for words in found if words]


def check_make(words: list[str]) -> None:
    assert {word for word in words if "=" not in word} <= MAKE_TARGETS


def check_qemu_ga(words: list[str]) -> None:
    options.parse(words)


def check_pytest(words: list[str]) -> None:
    assert all((CHECKOUT / word).exists() for word in words if word.startswith("tests/"))


OUR_COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "make": check_make,
    "qemu-ga": check_qemu_ga,
    "pytest": check_pytest,
    "qgactl": lambda words: None,  # tests/integration/test_documented_examples.py runs it
}


def check_shell(block: Block) -> None:
    subprocess.run(["sh", "-n"], input=block.text, text=True, check=True)
    for name, *words in commands(block.text):
        program = Path(name).name
        assert program in OUR_COMMANDS or block.reason, f"{program} is not run: say why"
        if program in OUR_COMMANDS:
            OUR_COMMANDS[program](words)


def check_console(block: Block) -> None:
    assert block.text.startswith("$ ")
    assert block.comment in RUN_BY_COMMENT or block.reason
    for step in steps(block.text):
        subprocess.run(["sh", "-n"], input=step.command, text=True, check=True)


def check_python(block: Block) -> None:
    assert not block.file or block.page == "docs/plugins.md", "no test uses this file"
    compile(block.text, block.place, "exec")


def check_ini(block: Block) -> None:
    if block.reason:
        return
    section = "" if block.text.startswith(("[", "#")) else "[general]\n"
    read = configfile.parse(section + block.text, block.page)
    assert read.warnings == ()
    config.build(read.general, read.channels)


def check_toml(block: Block) -> None:
    """A configuration of qgactl."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(block.text)
        file.flush()
        assert address_book.read(file.name) != address_book.Book()


def check_yaml(block: Block) -> None:
    """Parsed by the distribution's Python, which has yaml for Ansible."""
    if subprocess.run(["/usr/bin/python3", "-c", "import yaml"], check=False).returncode == 0:
        argv = ["/usr/bin/python3", "-c", "import sys, yaml; yaml.safe_load(sys.stdin)"]
        subprocess.run(argv, input=block.text, text=True, check=True)


def check_picture(block: Block) -> None:
    opened = len(re.findall(r"^ *subgraph ", block.text, re.M))
    assert opened == len(re.findall(r"^ *end$", block.text, re.M))


CHECKS: dict[str, Callable[[Block], object]] = {
    "console": check_console,
    "ini": check_ini,
    "json": lambda block: json.loads(block.text),
    "mermaid": check_picture,
    "python": check_python,
    "sh": check_shell,
    "toml": check_toml,
    "xml": lambda block: ET.fromstring(block.text),
    "yaml": check_yaml,
}


@pytest.mark.parametrize("block", BLOCKS, ids=named)
def test_a_block_can_be_read(block: Block) -> None:
    if block.language == "text":
        assert block.reason, "say in a comment why this is not run"
    else:
        CHECKS[block.language](block)


@pytest.mark.parametrize("block", BLOCKS, ids=named)
def test_a_reason_names_tests_that_exist(block: Block) -> None:
    for path in re.findall(r"\btests/[\w/.]+\w", block.comment):
        assert (CHECKOUT / path).exists()


@pytest.mark.parametrize("page", pages())
def test_code_is_fenced(page: str) -> None:
    """An indented block has no language, so that nothing would check it."""
    assert re.findall(r"\n\n(?:    |\t)[^ *\d-].*|^~~~|<pre", prose(page), re.M) == []


@pytest.mark.parametrize("page", pages())
def test_commands_in_sentences_exist(page: str) -> None:
    for line in re.findall(r"`((?:qgactl|qemu-ga|make) [^`]+)`", prose(page)):
        program, *words = line.split()
        ours = words[: words.index("--")] if "--" in words else words
        if program == "make":
            assert set(words) <= MAKE_TARGETS, line
            continue
        flags = {word.partition("=")[0] for word in ours if word.startswith("-")}
        assert flags <= FLAGS[program], line
        if program == "qgactl" and not ours[0].startswith("-"):
            assert ours[0] in SUBCOMMANDS, line


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page: str) -> None:
    text = (CHECKOUT / page).read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, heading = target.partition("#")
        if not path.startswith(("https:", "http:", "mailto:")):
            linked = (CHECKOUT / page).parent / path if path else CHECKOUT / page
            assert linked.exists(), target
            assert not heading or heading in anchors(linked.read_text()), target


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def test_every_page_is_in_the_list() -> None:
    listed = (CHECKOUT / "README.md").read_text() + (CHECKOUT / "docs/README.md").read_text()
    for page in CHECKOUT.glob("docs/*.md"):
        assert page.name in listed, f"{page.name} is linked neither by README.md nor docs/README.md"


def configuration_on_the_page() -> dict[str, dict[str, str]]:
    """Each key of docs/configuration.md with its default, by the section in the heading above."""
    found: dict[str, dict[str, str]] = {}
    section = ""
    for line in (CHECKOUT / "docs/configuration.md").read_text().splitlines():
        heading = re.match(r"##+ (?:Keys of `\[(\w+).*\]`)?", line)
        if heading and (heading[1] or line.startswith("## ")):
            section = heading[1] or ""
        row = re.match(r"\| `([^|]+)` \| ([^|]*) ?\|", line)
        if row and section:
            found.setdefault(section, {})[row[1]] = row[2].strip("` -")
    return found


def test_the_page_of_the_configuration_has_every_key() -> None:
    sections = {"general": config.GENERAL_KEYS, "channel": config.CHANNEL_KEYS, **config.RULE_KEYS}
    shown = configuration_on_the_page()
    assert {name: set(keys) for name, keys in shown.items()} == {
        name: set(keys) for name, keys in sections.items()
    }


def test_the_page_of_the_configuration_has_the_defaults() -> None:
    sections = {"general": interface.general_keys(), **interface.rule_keys()}
    shown = configuration_on_the_page()
    for section, keys in sections.items():
        for key in keys:
            assert shown[section][key.name] == (key.default or ""), key.name


def test_the_page_of_plugins_has_the_public_interface() -> None:
    page = (CHECKOUT / "docs/plugins.md").read_text()
    parameters = inspect.signature(qga.command).parameters
    methods = {name for name in vars(qga.CommandGroup) if name.startswith(("on_", "do_"))}
    for name in {*qga.__all__, *parameters, *methods}:
        assert f"`{name}`" in page or f"`{name}(" in page, name


def is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, client.AgentError)


def test_the_page_of_the_library_has_every_method_and_error() -> None:
    page = (CHECKOUT / "docs/library.md").read_text()
    methods = {name for name in dir(client.GuestAgent) if not name.startswith("_")}
    errors = {name for name in client.__all__ if is_error(getattr(client, name))}
    for name in methods - {"max_data", "max_output"} | errors:
        assert f"`{name}`" in page or f"`{name}(" in page, name


def test_the_readme_is_short_and_names_the_interface() -> None:
    readme = (CHECKOUT / "README.md").read_text()
    assert len(readme.splitlines()) <= 150
    assert f"agent ({qga.INTERFACE_VERSION})" in readme
    count = sum(command.name.startswith("guest-") for command in interface.commands())
    assert f"all {count} commands" in readme


def test_the_changelog_has_this_version() -> None:
    """The newest one that is not marked as unreleased."""
    headings = re.findall(r"^## (.*)$", (CHECKOUT / "CHANGELOG.md").read_text(), re.M)
    released = next(heading for heading in headings if not heading.endswith("(unreleased)"))
    assert released.split()[0] == qga.__version__


MEASURED = {
    "Speed: round trip of a ping": ["guest-ping round trip, p50"],
    "Run `/bin/true` and fetch its status": ["guest-exec of /bin/true until exited"],
    "Read, write a file in a VM": [
        "in a guest: file read, 1 MiB a request",
        "in a guest: file write, 1 MiB a request",
    ],
    "**Cost**: idle memory": ["idle memory (RSS), after the first ping"],
    "**Cost**: start to first answer": ["start to first answer"],
}


def cells(page: str, name: str) -> list[str]:
    """The cells of the row of a table that begins with this one, without it."""
    rows = (line.split("|") for line in (CHECKOUT / page).read_text().splitlines())
    (row,) = (row for row in rows if len(row) > 3 and row[1].strip() == name)
    return row[2:4]


@pytest.mark.parametrize("name", MEASURED)
def test_the_numbers_of_the_readme_are_those_that_were_measured(name: str) -> None:
    for side, shown in enumerate(cells("README.md", name)):
        numbers = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", shown)]
        measured = (cells("tests/bench/RESULTS.md", row)[side] for row in MEASURED[name])
        expected = [float(text.replace(",", "").split()[0]) for text in measured]
        assert numbers == pytest.approx(expected, rel=0.25)
