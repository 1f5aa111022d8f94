"""A parser of GLib's key-file format, which qemu-ga.conf uses. It records the line of every key.

The format is that of the Desktop Entry Specification: `[group]` headers, `key=value` pairs, `#`
comments on lines of their own, and the escapes `\\s \\n \\t \\r \\\\` in values. There are no
quotes and, unlike in configparser's format, no continuation lines. White space around the key and
before the value is ignored; after the value it is significant. If a key is repeated, the last value
counts, unless the values are rules, which are combined. A group that is opened twice is one group.

What must stay true: an error names its line, and `decode(encode(text)) == text` for every text
without NUL, because --dump-conf depends on it.
"""

from __future__ import annotations

from qga.records import NamedTuple

_BLANKS = " \t"
_EMPTY = f"{_BLANKS}\f"
_IN_LOCALES = dict.fromkeys(map(ord, "-_.@"))
_ESCAPES = {"s": " ", "n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


class KeyFileError(Exception):
    """The file violates the format. `line` counts from 1; the text describes the error."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


class Entry(NamedTuple):
    """The value of a key as written in the file (still escaped), and its line.

    `earlier` contains the previous values of the same key, each with its line.
    """

    raw: str
    line: int
    earlier: tuple[tuple[str, int], ...] = ()


class Group(NamedTuple):
    """The line where a group was first opened, and its entries by key."""

    line: int
    entries: dict[str, Entry]


def parse(text: str) -> dict[str, Group]:
    """The groups of a key file by name, in the order of the file. Raises KeyFileError."""
    groups: dict[str, Group] = {}
    group: Group | None = None
    # Not splitlines, which also ends a line at U+2028, form feeds and others.
    for number, line in enumerate(text.split("\n"), 1):
        # GLib accepts lines that end with CR LF.
        content = line[: -len("\r")] if line.endswith("\r") else line
        content = content.lstrip(_EMPTY)
        if "\0" in content:
            raise KeyFileError(number, "NUL byte in a text file")
        if not content or content.startswith("#"):
            continue
        if content.startswith("["):
            group = groups.setdefault(_group_name(content, number), Group(number, {}))
        elif group is None:
            raise KeyFileError(number, "a key needs a group header such as [general] above it")
        else:
            _take_entry(group.entries, content, number)
    return groups


def decode(raw: str) -> str:
    """The text of an escaped value. Raises ValueError for an unknown escape."""
    characters = iter(raw)
    return "".join(_unescape(next(characters, "")) if c == "\\" else c for c in characters)


def encode(text: str) -> str:
    """The escaped value that reads back as `text`. Only blanks at its ends need escapes."""
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    body = escaped.strip(_BLANKS)
    leading, _, trailing = escaped.partition(body) if body else (escaped, "", "")
    return _encode_blanks(leading) + body + _encode_blanks(trailing)


def _encode_blanks(blanks: str) -> str:
    return blanks.replace(" ", "\\s").replace("\t", "\\t")


def _unescape(letter: str) -> str:
    try:
        return _ESCAPES[letter]
    except KeyError:
        raise ValueError(
            f"invalid escape '\\{letter}'; use \\s \\t \\n \\r, or \\\\ for a backslash"
        ) from None


def _group_name(content: str, number: int) -> str:
    header = content.rstrip(_BLANKS)
    if not header.endswith("]"):
        raise KeyFileError(number, f"group header '{content}' does not end with ']'")
    name = header[1:-1]
    if not name or "[" in name or "]" in name or any(map(_is_control, name)):
        raise KeyFileError(number, f"invalid group name '{name}'")
    return name


def _is_control(character: str) -> bool:
    return character < " " or character == "\x7f"


def _is_key(text: str) -> bool:
    """Whether this is a key as GLib knows it: a name, and maybe a locale, such as [de]."""
    name, bracket, locale = text.partition("[")
    if not bracket:
        return "]" not in text
    letters = locale[:-1].translate(_IN_LOCALES)
    complete = locale.endswith("]") and not name.endswith(" ") and "]" not in name
    return complete and (not letters or letters.isalnum())


def _take_entry(entries: dict[str, Entry], content: str, number: int) -> None:
    key, equals, value = content.partition("=")
    key = key.rstrip(_BLANKS)
    if not equals or not key:
        raise KeyFileError(number, f"'{content}' is not a key=value pair, a [group] or a # comment")
    if not _is_key(key):
        raise KeyFileError(number, f"invalid key name '{key}'")
    earlier = entries.get(key)
    before = (*earlier.earlier, (earlier.raw, earlier.line)) if earlier else ()
    entries[key] = Entry(value.lstrip(_BLANKS), number, before)
