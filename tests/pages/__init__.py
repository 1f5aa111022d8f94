"""The pages of the documentation, and the code blocks in them.

Every fenced block is run by a test, read by the parser that its language has, or carries a reason
why neither is possible, in a comment on the line before it:

    <!-- not run: it needs a host with Proxmox VE -->

By its language a block is

    console   commands, each after `$ `, with the output that they must have; run on a host whose
              only guest is `web` (tests/host/test_documented_commands.py), or where a comment
              says: `run here`, in a checkout of this repository, or `run with the configuration
              above`
    python    run on the same host, all blocks of a page as one program; a plugin or its tests,
              if the first line is a comment with the name of a file
              (tests/integration/test_documented_examples.py)
    sh        commands to type that cannot be run here; those of this project are parsed
    ini       a qemu-ga.conf, read without a warning
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).parent.parent.parent
PLACES = ("*.md", *(f"{place}/**/*.md" for place in ("docs", "examples", "packaging", "tests")))

_NOT_RUN = "not run: "
_COMMENT = re.compile(r"<!-- (.*) -->")
_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>```+)(?P<language>.*)$")


class Block(NamedTuple):
    """A fenced block: its first line in the page, and the comment before it."""

    page: str
    line: int
    language: str
    comment: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def reason(self) -> str:
        """Why it is not run; "" if it is."""
        return self.comment[len(_NOT_RUN) :] if self.comment.startswith(_NOT_RUN) else ""

    @property
    def file(self) -> str:
        """The name of the file that it shows, if it shows one."""
        shown = re.match(r"# ([\w/]+\.py)\n", self.text)
        return shown[1] if shown and self.language == "python" else ""


class Step(NamedTuple):
    """A command of a console block, and the output that the page shows."""

    command: str
    output: str


def pages() -> list[str]:
    """The pages, relative to the checkout."""
    found = (path for place in PLACES for path in CHECKOUT.glob(place))
    return sorted(str(path.relative_to(CHECKOUT)) for path in found)


def blocks(page: str, text: str | None = None) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    lines = iter(enumerate((text or (CHECKOUT / page).read_text()).splitlines(), 1))
    before = ""
    for number, line in lines:
        opening = _FENCE.match(line)
        if opening:
            indent, fence, language = opening.groups()
            inside = []
            for _, inner in lines:
                if inner == indent + fence:
                    break
                inside.append(inner.removeprefix(indent) + "\n")
            comment = _COMMENT.fullmatch(before)
            yield Block(page, number + 1, language, comment[1] if comment else "", "".join(inside))
        before = line.strip()


def steps(block: str) -> list[Step]:
    """The commands of a console block; one may go on after a backslash."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [Step(*_command_and_output(part)) for part in parts]


def _command_and_output(part: str) -> tuple[str, str]:
    command, _, output = part.partition("\n")
    while command.endswith("\\"):
        more, _, output = output.partition("\n")
        command += f"\n{more}"
    return command, output


def shape(text: str) -> list[str]:
    """Lines without what differs from run to run: numbers, names of temporary directories, the
    width of columns."""
    text = re.sub(r"/tmp/tmp\.\w+", "/tmp/tmp", text)
    text = re.sub(r"\b[0-9a-f]{4,}\b|\d+(\.\d+)?", "0", text)
    return [re.sub(r"[ ─]+", " ", line).strip() for line in text.splitlines()]
