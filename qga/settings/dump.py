"""Writing a configuration as a file that reads back to the same configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from qga.settings import keyfile
from qga.settings.config import (
    ADDING_KEYS,
    CHANNEL_KEYS,
    DEFAULTS,
    GENERAL_KEYS,
    RULE_KEYS,
    Config,
    field_of,
)

if TYPE_CHECKING:
    from qga.settings.values import Value


def dump(config: Config) -> str:
    """The text of a configuration file that reads back to the same configuration."""
    main, *others = config.channels
    general = {**config._asdict(), **main._asdict()}
    lines = ["[general]", *_keys(GENERAL_KEYS, general)]
    lines += _rules("", general, DEFAULTS)
    for channel in others:
        lines += ["", f"[channel {channel.name}]", *_keys(CHANNEL_KEYS, channel._asdict())]
        lines += _rules(f" {channel.name}", channel._asdict(), general)
    return "\n".join(lines) + "\n"


def _keys(keys: Iterable[str], fields: dict[str, Any]) -> Iterable[str]:
    for key in keys:
        value = fields[field_of(key)]
        if value is not None:
            yield f"{key}={_value(value)}"


def _rules(suffix: str, fields: dict[str, Any], below: dict[str, Any]) -> Iterable[str]:
    """The sections with rules that differ from the values in `below`."""
    for section, keys in RULE_KEYS.items():
        lines = []
        for key in keys:
            field = field_of(f"{section}.{key}")
            value = fields.get(field)
            if value is None or value == below[field]:
                continue
            repeats = f"{section}.{key}" in ADDING_KEYS
            lines += [f"{key}={_value(each)}" for each in (value if repeats else [value])]
            # An empty list is not a missing one: it allows nothing.
            if value == ():
                lines.append(f"{key}=")
        if lines:
            yield from ("", f"[{section}{suffix}]", *lines)


def _value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return keyfile.encode(",".join(map(str, value)))
    return keyfile.encode(str(value))
