"""Parsers for the values of configuration keys.

Each `parse_` function takes the text of one value and returns the value, or raises ValueError with
a text that describes valid values. The caller adds the key and the line.
"""

from __future__ import annotations

from qga.wire.payload import MAX_MESSAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Callable, Union

    Value = Union[bool, int, float, str, tuple[str, ...], tuple[int, ...]]

DEFAULT_PATHS = {
    "virtio-serial": "/dev/virtio-ports/org.qemu.guest_agent.0",
    "isa-serial": "/dev/ttyS0",
    "unix-listen": "",
    "vsock-listen": "",
}
"""The default path of each method; "" if a path must be given."""

MIB = 1024 * 1024

MAX_THREADS = 64
"""The default limit of blocking commands that run at the same time."""

PROFILES = ("audit", "filesystem", "file-read", "file-write", "unrestricted")
"""Levels of trust in a host, named as in Proxmox VE; each includes those before it."""

_LEAST_SHARE = 0.01  # of a processor: the least that the kernel enforces
_LAST_CID = 2**32 - 1  # VMADDR_CID_ANY of <linux/vm_sockets.h>
_SMALLEST_MESSAGE = 1024  # bytes; without guest-sync and its id no client gets any reply
_SUFFIXES = {"K": 1024, "M": MIB, "G": 1024 * MIB}


def parse_names(text: str) -> tuple[str, ...]:
    """The names in a comma-separated list, without surrounding spaces."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def parse_method(text: str) -> str:
    if text not in DEFAULT_PATHS:
        methods = ", ".join(DEFAULT_PATHS)
        raise ValueError(f"unsupported channel method/type: {text} (use one of {methods})")
    return text


def parse_boolean(text: str) -> bool:
    try:
        # GLib ignores blanks after a boolean, but not after other values.
        return {"true": True, "1": True, "false": False, "0": False}[text.rstrip()]
    except KeyError:
        raise ValueError(f"invalid boolean '{text}'; use true, false, 1 or 0") from None


def parse_account(text: str) -> str:
    if not text:
        raise ValueError("the name is empty; use the name of a user, such as nobody")
    return text


def parse_positive(text: str) -> int:
    number = _whole_number(text)
    if number < 1:
        raise ValueError(f"'{text}' is too small; use a whole number of at least 1")
    return number


def parse_seconds(text: str) -> int:
    """A time limit in seconds; 0 for none."""
    return _whole_number(text)


def parse_cids(text: str) -> tuple[int, ...]:
    cids = tuple(_whole_number(name) for name in parse_names(text))
    for cid in cids:
        if cid > _LAST_CID:
            raise ValueError(f"invalid vsock CID '{cid}'; use numbers from 0 to {_LAST_CID}")
    return cids


def parse_profile(text: str) -> str:
    if text not in PROFILES:
        raise ValueError(f"invalid profile '{text}'; use one of {', '.join(PROFILES)}")
    return text


def parse_environment(text: str) -> str:
    if text not in ("keep", "drop"):
        raise ValueError(f"invalid value '{text}'; use keep or drop")
    return text


def parse_size(text: str) -> int:
    """A number of bytes, optionally in units of 1024 (K), 1024 K (M) or 1024 M (G)."""
    digits, unit = text.strip(), 1
    if digits[-1:] in _SUFFIXES:
        digits, unit = digits[:-1].rstrip(), _SUFFIXES[digits[-1]]
    if not (digits.isascii() and digits.isdecimal()):
        raise ValueError(f"'{text}' is not a size; use digits, optionally followed by K, M or G")
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
        raise ValueError(f"'{text}' is too small for a request; use 1K to 64M")
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


def parse_targets(text: str) -> tuple[str, ...]:
    from qga.settings.connect_patterns import compile_target

    return _each(text.split(";"), compile_target)


def _each(texts: Iterable[str], compile: Callable[[str], object]) -> tuple[str, ...]:
    """The rules in a list. Raises ValueError if one does not compile."""
    rules = tuple(rule.strip() for rule in texts if rule.strip())
    for rule in rules:
        compile(rule)
    return rules


def _whole_number(text: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdecimal()):
        raise ValueError(f"'{text}' is not a whole number; use digits only")
    return int(digits)
