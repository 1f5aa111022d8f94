"""Lines of authorized_keys files (sshd(8)), and files of public keys."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import NamedTuple, Optional

from qga.ctl.standard_input import text_of

LINE = re.compile(
    r"(?:^|\s)(?P<type>(?:ssh|ecdsa|sk)-\S+)\s+(?P<body>AAAA[0-9A-Za-z+/]+=*)(?:\s+(?P<comment>.*))?$"
)


class Key(NamedTuple):
    """A line of such a file. The other members are None if it is not a key.

    The fingerprint is that of ssh-keygen(1).
    """

    line: str
    type: Optional[str] = None
    fingerprint: Optional[str] = None
    comment: Optional[str] = None


def parse_key(line: str) -> Key:
    match = LINE.search(line)
    if match is None:
        return Key(line)
    try:
        digest = hashlib.sha256(binascii.a2b_base64(match["body"])).digest()
    except ValueError:
        return Key(line)
    fingerprint = "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")
    return Key(line, match["type"], fingerprint, match["comment"])


def read_keys(files: Iterable[str]) -> Iterator[Key]:
    """The keys in files, `-` for standard input. ValueError, which names it, for anything else."""
    for file in files:
        try:
            with nullcontext(sys.stdin.buffer) if file == "-" else open(file, "rb") as opened:
                text = text_of(opened)
        except OSError as error:
            raise ValueError(f"cannot read {file}: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"cannot read {file}: {error}") from None
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            key = parse_key(line.strip())
            if key.type is None:
                raise ValueError(f"line {number} of {file} is not an ssh public key")
            yield key


def same_keys(present: Iterable[str], unwanted: Iterable[Key]) -> list[str]:
    """The lines of `present` with keys of `unwanted`, whatever their options and comments."""
    fingerprints = {key.fingerprint for key in unwanted}
    return [line for line in present if parse_key(line).fingerprint in fingerprints]
