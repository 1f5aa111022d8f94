"""What the values of the configuration's keys may be, and how they are read.

Each `parse_` takes the text of one value and returns what it stands for, or raises ValueError
with a text that says what would be right; whoever calls it adds the key and the line.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Callable, Union

from qga.wire.payload import MAX_MESSAGE

Value = Union[bool, int, float, str, tuple[str, ...], tuple[int, ...]]

DEFAULT_PATHS = {
    "virtio-serial": "/dev/virtio-ports/org.qemu.guest_agent.0",
    "isa-serial": "/dev/ttyS0",
    "unix-listen": "",
    "vsock-listen": "",
}
"""The methods, each with the path that it has when none is given; "" where one must be given."""

MIB = 1024 * 1024

MAX_THREADS = 64
"""Blocking commands that may be under way at once."""

PROFILES = ("audit", "filesystem", "file-read", "file-write", "unrestricted")
"""What a host may be trusted with, in Proxmox VE's words; each includes those before it."""

_LEAST_SHARE = 0.01  # of a processor: the least that the kernel keeps to
_LAST_CID = 2**32 - 1
_SMALLEST_MESSAGE = 1024
_SUFFIXES = {"K": 1024, "M": MIB, "G": 1024 * MIB}


def parse_names(text: str) -> tuple[str, ...]:
    """The names of a comma-separated list. Spaces around them are not part of a name."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def parse_method(text: str) -> str:
    if text not in DEFAULT_PATHS:
        methods = ", ".join(DEFAULT_PATHS)
        raise ValueError(f"unsupported channel method/type: {text} (use one of {methods})")
    return text


def parse_boolean(text: str) -> bool:
    try:
        return {"true": True, "1": True, "false": False, "0": False}[text.rstrip()]
    except KeyError:
        raise ValueError(f"'{text}' is no boolean; use true, false, 1 or 0") from None


def parse_positive(text: str) -> int:
    number = _whole_number(text)
    if number < 1:
        raise ValueError(f"'{text}' is too small; use a whole number from 1 up")
    return number


def parse_seconds(text: str) -> int:
    """A limit of time, in seconds; 0 for none."""
    return _whole_number(text)


def parse_cids(text: str) -> tuple[int, ...]:
    cids = tuple(_whole_number(name) for name in parse_names(text))
    for cid in cids:
        if cid > _LAST_CID:
            raise ValueError(f"'{cid}' is no vsock CID; use numbers from 0 to {_LAST_CID}")
    return cids


def parse_profile(text: str) -> str:
    if text not in PROFILES:
        raise ValueError(f"'{text}' is no profile; use one of {', '.join(PROFILES)}")
    return text


def parse_environment(text: str) -> str:
    if text not in ("keep", "drop"):
        raise ValueError(f"'{text}' is neither keep nor drop")
    return text


def parse_size(text: str) -> int:
    """Bytes, also in units of 1024 (K), 1024 K (M) or 1024 M (G)."""
    digits, unit = text.strip(), 1
    if digits[-1:] in _SUFFIXES:
        digits, unit = digits[:-1], _SUFFIXES[digits[-1]]
    return parse_positive(digits) * unit


def parse_share(text: str) -> float:
    """A number of processors, also a part of one."""
    whole, _, part = text.strip().partition(".")
    digits = whole + part
    if not (digits.isascii() and digits.isdecimal()) or float(text) < _LEAST_SHARE:
        raise ValueError(f"'{text}' is not a number of processors; use 0.5, 1 or more, for example")
    return float(text)


def parse_message_size(text: str) -> int:
    size = min(parse_size(text), MAX_MESSAGE + 1)
    if size < _SMALLEST_MESSAGE:
        raise ValueError(f"'{text}' is too small for any request; use 1K to 64M")
    return min(size, MAX_MESSAGE)


def parse_path_patterns(text: str) -> tuple[str, ...]:
    from qga.settings.patterns import compile_path

    return _each(text.split(";"), compile_path)


def parse_programs(text: str) -> tuple[str, ...]:
    from qga.settings.patterns import compile_program, split_rules

    return _each(split_rules(text), compile_program)


def parse_accounts(text: str) -> tuple[str, ...]:
    from qga.settings.patterns import compile_name

    return _each(text.split(";"), compile_name)


def _each(texts: Iterable[str], compile: Callable[[str], object]) -> tuple[str, ...]:
    """The rules of a list. Raises ValueError for one that does not compile."""
    rules = tuple(rule.strip() for rule in texts if rule.strip())
    for rule in rules:
        compile(rule)
    return rules


def _whole_number(text: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdecimal()):
        raise ValueError(f"'{text}' is not a whole number")
    return int(digits)
