"""The requests of man(7) that our pages need, and the escaping of text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from textwrap import wrap

_LINE = 78
_PARAGRAPH_AFTER_HEADING = re.compile(r"^(\.S[HS] .*\n)\.PP\n", re.MULTILINE)


def escape(text: str) -> str:
    """Escape text so that it appears literally."""
    for sign, name in (("\\", "\\(rs"), ("-", "\\-"), ("'", "\\(aq"), ("`", "\\(ga")):
        text = text.replace(sign, name)
    for sign, name in (("^", "\\(ha"), ("~", "\\(ti"), ("—", "\\(em"), ("…", "...")):
        text = text.replace(sign, name)
    return "\n".join(f"\\&{line}" if line.startswith(".") else line for line in text.split("\n"))


def bold(text: str) -> str:
    return f"\\fB{escape(text)}\\fR"


def italic(text: str) -> str:
    return f"\\fI{escape(text)}\\fR"


def page(name: str, section: int, date: str, version: str, summary: str) -> str:
    head = f'.TH {escape(name.upper())} {section} "{date}" "qga {escape(version)}" "qga"'
    return "\n".join(
        [head, ".nh", ".ad l", heading("Name"), f"{escape(name)} \\- {escape(summary)}"]
    )


def heading(title: str) -> str:
    return f'.SH "{escape(title.upper())}"'


def subheading(title: str) -> str:
    return f'.SS "{escape(title)}"'


def paragraph(text: str) -> str:
    return f".PP\n{_fill(text)}"


def item(tag: str, text: str) -> str:
    """`tag` is roff already, `text` is not."""
    return f".TP\n{tag}\n{_fill(text)}"


def literal(text: str) -> str:
    """Lines that are not filled."""
    return f".PP\n.nf\n.RS 4\n{escape(text)}\n.RE\n.fi"


def _fill(text: str) -> str:
    """Escaped text in lines that mandoc's lint does not find too long."""
    lines = wrap(escape(text), _LINE, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"\\&{line}" if line.startswith(".") else line for line in lines)


def join(parts: Iterable[str]) -> str:
    text = "\n".join(parts) + "\n"
    return _PARAGRAPH_AFTER_HEADING.sub(r"\1", text)  # mandoc's lint warns of these
