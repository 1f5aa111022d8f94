"""The few requests of man(7) that our pages need, and the escaping of text."""

from __future__ import annotations

from collections.abc import Iterable


def escape(text: str) -> str:
    """Text as it is, whatever signs are in it."""
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
    return f".PP\n{escape(text)}"


def item(tag: str, text: str) -> str:
    """`tag` is roff already, `text` is not."""
    return f".TP\n{tag}\n{escape(text)}"


def literal(text: str) -> str:
    """Lines that stay as they are."""
    return f".PP\n.nf\n.RS 4\n{escape(text)}\n.RE\n.fi"


def join(parts: Iterable[str]) -> str:
    return "\n".join(parts) + "\n"
