"""Reads qemu-ga.conf into layers for qga.config, with the line of whatever is wrong.

A wrong value stops the agent: half a configuration could let in what was meant to be blocked.
What the agent does not know (a section, a key) is ignored as qemu-ga ignores it, so that one file
can serve several versions, but never silently.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from typing import NamedTuple

from qga import keyfile
from qga.config import (
    CHANNEL_KEYS,
    GENERAL_KEYS,
    ChannelSection,
    Layer,
    Value,
    overlay,
    parse_names,
)
from qga.errors import ConfigError

_HINTS = {"daemonize": "; the key is 'daemon'"}  # qemu-ga's manual has it wrong in its sample
_OLD_BLOCK_KEY = "blacklist"


class ConfigFile(NamedTuple):
    """What a configuration file says, and the warnings about how it says it."""

    general: Layer
    channels: tuple[ChannelSection, ...]
    warnings: tuple[str, ...]


NO_FILE = ConfigFile({}, (), ())


def read(path: str) -> ConfigFile:
    """What the configuration file at `path` says.

    Raises FileNotFoundError when there is none, and ConfigError, which names the line, when it
    cannot be read or is wrong.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ConfigError(f"error loading configuration from path: {path}, Not a regular file")
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return parse(file.read(), path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(
            f"error loading configuration from path: {path}, {error.strerror}"
        ) from None


def parse(text: str, path: str) -> ConfigFile:
    """What the text of a configuration file says; `path` is for messages. Raises ConfigError."""
    reader = _Reader(path)
    try:
        groups = keyfile.parse(text)
    except keyfile.KeyFileError as error:
        raise reader.error(error.line, str(error)) from None
    for name, group in groups.items():
        reader.take_group(name, group)
    return ConfigFile(reader.general, tuple(reader.channels), tuple(reader.warnings))


class _Reader:
    """Collects what the groups of one file say."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.general: Layer = {}
        self.channels: list[ChannelSection] = []
        self.warnings: list[str] = []

    def error(self, line: int, text: str) -> ConfigError:
        return ConfigError(self._place(line) + text)

    def take_group(self, name: str, group: keyfile.Group) -> None:
        kind, _, channel = name.partition(" ")
        if name == "general":
            self.general = self._layer(group, GENERAL_KEYS, name)
            self._take_old_block_key(group)
        elif kind == "channel":
            self._take_channel(channel.strip(), group)
        else:
            self._warn(group.line, f"the section [{name}] is unknown and ignored")

    def _take_channel(self, name: str, group: keyfile.Group) -> None:
        if not name:
            raise self.error(group.line, "a channel needs a name, as in [channel monitoring]")
        if name == "main" or any(section.name == name for section in self.channels):
            raise self.error(group.line, f"there is a channel '{name}' already; use another name")
        layer = self._layer(group, CHANNEL_KEYS, f"channel {name}")
        self.channels.append(ChannelSection(name, self._place(group.line), layer))

    def _layer(
        self, group: keyfile.Group, keys: Mapping[str, Callable[[str], Value]], section: str
    ) -> Layer:
        layer: Layer = {}
        for key, entry in group.entries.items():
            if key in keys:
                layer[key] = self._value(key, entry, keys[key])
            elif (section, key) != ("general", _OLD_BLOCK_KEY):
                hint = _HINTS.get(key, "")
                text = f"the key '{key}' is unknown in [{section}] and ignored{hint}"
                self._warn(entry.line, text)
        return layer

    def _value(self, key: str, entry: keyfile.Entry, parse: Callable[[str], Value]) -> Value:
        if entry.replaced_line is not None:
            self._warn(entry.line, f"this '{key}' replaces that of line {entry.replaced_line}")
        try:
            return parse(keyfile.decode(entry.raw))
        except ValueError as error:
            raise self.error(entry.line, f"{key}: {error}") from None

    def _take_old_block_key(self, group: keyfile.Group) -> None:
        entry = group.entries.get(_OLD_BLOCK_KEY)
        if entry is None:
            return
        blocked = self._value(_OLD_BLOCK_KEY, entry, parse_names)
        self.general = overlay(self.general, {"block-rpcs": blocked})
        self._warn(
            entry.line,
            "config using deprecated 'blacklist' key, "
            "should be replaced with the 'block-rpcs' key.",
        )

    def _place(self, line: int) -> str:
        return f"error loading configuration from path: {self.path}, line {line}: "

    def _warn(self, line: int, text: str) -> None:
        self.warnings.append(f"{self.path}, line {line}: {text}")
