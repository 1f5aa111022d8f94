"""Half a request, and how the request after it is found.

Some hosts send half a request and leave: Proxmox VE counts characters instead of bytes, and cuts a
request that is not ASCII short. On a port, what the next connection sends looks like the rest of
it. So a request that begins inside an unfinished value ends that value. That is dropped without a
reply: whoever waited for one is gone, and the next client would take it for its own.

What must stay true is that no valid JSON is taken for such a beginning:

- `{`, the name of a member of requests and `:`, where the grammar has no place for an object.
- `{"` and such a name, where `"` ends a string: what follows a string is no bare word.
- `{` and a member of requests within a number such as `-` or `1e`, which needs a digit.
- Where an object may stand (after `:`, `[`, or a comma in a list) an argument or an id may have
  a member `execute`, too. There it is a request only as a piece of its own: one that ends with
  its line, or is followed by another request by the first rule. So a value of several lines that
  comes in one piece is never cut, whatever it holds. Sent line by line it is where such an object
  makes up a whole line, without a comma; no command of ours takes one.
"""

from __future__ import annotations

import re

MAX_BEGINNING = 64
"""Bytes that are looked at for the beginning of a request, with the white space in it."""

_MAX_END = 8  # bytes of a brace and the white space behind it

_MEMBER = rb"""(?:"(?:arguments|execute|id)"|'(?:arguments|execute|id)')"""
_at_end = re.compile(rb"\{[ \t\r\n]*" + _MEMBER + rb"[ \t\r\n]*:\Z").search
_at = re.compile(rb"\{[ \t\r\n]*" + _MEMBER + rb"[ \t\r\n]*:").match
_in_string = re.compile(rb"\{[ \t]*\" ?(arguments|execute|id)\Z").search
_at_start = re.compile(rb"[ \t\r\n]*\{[ \t\r\n]*\"(?:arguments|execute|id)\"[ \t\r\n]*:").match


def beginning_at_end(text: bytes) -> bytes:
    """The beginning of a request that `text` ends with, or nothing."""
    found = _at_end(text)
    return found.group() if found else b""


def beginning_in_string(text: bytes) -> bytes:
    """The same where its first quotation mark ends a string, and a bare word is at the end."""
    found = _in_string(text)
    return b'{"' + found[1] if found else b""


def beginning_at(data: bytes, place: int) -> bytes:
    """The first byte of a request that begins at `place`, or nothing."""
    return data[place : place + 1] if _at(data, place) else b""


def begins_with_request(piece: bytes) -> bool:
    """Whether a piece begins as a request does."""
    return _at_start(piece) is not None


def is_line_of_request(piece: bytes) -> bool:
    """Whether a piece ends where the line of a request would."""
    return piece.endswith(b"\n") and piece[-_MAX_END:].rstrip().endswith(b"}")
