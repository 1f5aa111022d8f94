"""The reader of qemu-ga.conf: it yields layers, or an error with the number of the line.

An invalid value stops the agent. So does an unknown section or key that seems to be about rules,
misspelt or misplaced: otherwise something that was meant to be blocked would be allowed. Other
unknown sections and keys are ignored with a warning, as QEMU's agent ignores them, so that one file
can be used with several versions.
"""

from __future__ import annotations

import os
import stat

from qga.errors import ConfigError
from qga.records import NamedTuple
from qga.settings import keyfile, trust
from qga.settings.config import (
    ADDING_KEYS,
    AGENT_KEYS,
    CHANNEL_KEYS,
    GENERAL_KEYS,
    NO_ORIGINS,
    RULE_KEYS,
    ChannelSection,
    Origin,
    Origins,
    overlay,
)
from qga.settings.values import parse_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Optional

    from qga.settings.config import Layer
    from qga.settings.values import Value

_OLD_BLOCK_KEY = "blacklist"
_HINTS = {"daemonize": "; use 'daemon'"}  # an example in QEMU's manual has the wrong key

_RULES_OF_COMMANDS = ("block-rpcs", "allow-rpcs", "allow-cids", "profile", _OLD_BLOCK_KEY)
_WORDS_OF_RULES = (
    *("rpc", "allow", "block", "deny", "disable", "forbid", "permit", "restrict"),
    *("blacklist", "whitelist"),
)
_SECTIONS = ("general", "channel", *RULE_KEYS)


class ConfigFile(NamedTuple):
    """The contents of a configuration file, and warnings about it."""

    general: Layer
    channels: tuple[ChannelSection, ...]
    warnings: tuple[str, ...]
    origins: Origins = NO_ORIGINS


NO_FILE = ConfigFile({}, (), ())


def read(path: str) -> ConfigFile:
    """Read the configuration file at `path`.

    Raises FileNotFoundError if there is none, and ConfigError if it cannot be read, is invalid, or
    is writable by anyone but root.
    """
    try:
        # Opening a FIFO would wait for a writer.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ConfigError(f"error loading configuration from path: {path}, Not a regular file")
        trust.require(path)
        # Paths in values may be any bytes, and the parser handles carriage returns itself.
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return parse(file.read(), path)
    except FileNotFoundError:
        raise
    except trust.Untrusted as error:
        raise ConfigError(f"error loading configuration from path: {path}, {error}") from None
    except OSError as error:
        raise ConfigError(
            f"error loading configuration from path: {path}, {error.strerror}"
        ) from None


def parse(text: str, path: str) -> ConfigFile:
    """Parse the text of a configuration file; `path` is for messages. Raises ConfigError."""
    reader = _Reader(path)
    try:
        groups = keyfile.parse(text)
    except keyfile.KeyFileError as error:
        raise reader.error(error.line, str(error)) from None
    for name, group in groups.items():
        reader.take_group(name, group)
    reader.take_rules_of_channels()
    channels = tuple(reader.channels.values())
    return ConfigFile(reader.general, channels, tuple(reader.warnings), reader.origins)


class _Reader:
    """Collects the settings of one file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.general: Layer = {}
        self.origins = Origins()
        self.channels: dict[str, ChannelSection] = {}
        self.warnings: list[str] = []
        self._channel_rules: list[tuple[str, str, keyfile.Group]] = []

    def error(self, line: int, text: str) -> ConfigError:
        return ConfigError(self._place(line) + text)

    def take_group(self, name: str, group: keyfile.Group) -> None:
        kind, _, channel = name.partition(" ")
        if name == "general":
            self.general.update(self._layer(group, GENERAL_KEYS, name, self.origins))
            self._take_old_block_key(group)
        elif kind == "channel":
            self._take_channel(channel.strip(), group)
        elif name in RULE_KEYS:
            self.general.update(self._layer(group, RULE_KEYS[name], name, self.origins))
        elif kind in RULE_KEYS:
            self._channel_rules.append((kind, channel.strip(), group))
        else:
            self._take_unknown_section(name, group)

    def take_rules_of_channels(self) -> None:
        """Read sections such as [files monitoring], which may precede their channel."""
        for kind, name, group in self._channel_rules:
            if name == "main":
                raise self.error(group.line, f"use [{kind}] for the main channel")
            channel = self.channels.get(name)
            if channel is None:
                text = f"unknown channel '{name}'; add a section [channel {name}]"
                raise self.error(group.line, text)
            keys = RULE_KEYS[kind]
            own = {key: parse for key, parse in keys.items() if f"{kind}.{key}" not in AGENT_KEYS}
            channel.layer.update(self._layer(group, own, f"{kind} {name}", channel.origins))

    def _take_unknown_section(self, name: str, group: keyfile.Group) -> None:
        from qga.settings.spelling import nearest

        first = name.replace(".", " ").replace(":", " ").replace("/", " ").split()[:1]
        meant = nearest(first[0] if first else name, _SECTIONS)
        if meant:
            raise self.error(group.line, f"unknown section [{name}]; did you mean [{meant}]?")
        for key, entry in group.entries.items():
            if self._rule_meant(key) is not None:
                raise self.error(entry.line, f"key '{key}' in unknown section [{name}]")
        self._warn(group.line, f"unknown section [{name}] ignored")

    def _take_unknown_key(
        self, key: str, entry: keyfile.Entry, section: str, known: Iterable[str]
    ) -> None:
        from qga.settings.spelling import nearest

        text = f"unknown key '{key}' in [{section}]"
        meant = nearest(key, known)
        rule = self._rule_meant(key)
        if meant is None and rule is not None:
            raise self.error(entry.line, text + rule)
        hint = f"; did you mean '{meant}'?" if meant else _HINTS.get(key, "")
        if meant in _RULES_OF_COMMANDS:
            raise self.error(entry.line, text + hint)
        self._warn(entry.line, f"{text} ignored{hint}")

    def _rule_meant(self, key: str) -> Optional[str]:
        """A hint for a key that seems to be about rules; None if it does not."""
        from qga.settings.spelling import nearest

        meant = nearest(key, _RULES_OF_COMMANDS)
        if meant == _OLD_BLOCK_KEY:
            return "; did you mean 'block-rpcs'?"
        if meant:
            return f"; did you mean '{meant}' in [general] or [channel NAME]?"
        plain = key.lower().replace("_", "-")
        for section, keys in RULE_KEYS.items():
            if plain.removeprefix(f"{section}.").removeprefix(f"{section}-") in keys:
                return f"; it belongs in [{section}]"
        if any(word in key.lower() for word in _WORDS_OF_RULES):
            return f"; the keys for commands are {', '.join(_RULES_OF_COMMANDS[:-1])}"
        return None

    def _take_channel(self, name: str, group: keyfile.Group) -> None:
        if not name:
            raise self.error(group.line, "a channel needs a name, as in [channel monitoring]")
        if name == "main" or name in self.channels:
            raise self.error(group.line, f"channel '{name}' already exists; use another name")
        origins = Origins()
        layer = self._layer(group, CHANNEL_KEYS, f"channel {name}", origins)
        self.channels[name] = ChannelSection(name, self._place(group.line), layer, origins)

    def _layer(
        self,
        group: keyfile.Group,
        keys: Mapping[str, Callable[[str], Value]],
        section: str,
        origins: Origins,
    ) -> Layer:
        """The settings of a section; their places are added to `origins`."""
        kind = section.partition(" ")[0]
        prefix = f"{kind}." if kind in RULE_KEYS else ""
        layer: Layer = {}
        for key, entry in group.entries.items():
            name = prefix + key
            if key in keys:
                parse = self._sum if name in ADDING_KEYS else self._last
                layer[name], lines = parse(key, entry, keys[key])
                origins[name] = Origin(section, self.path, lines)
            elif prefix:
                raise self.error(entry.line, _unknown_rule(key, section, keys))
            elif (section, key) != ("general", _OLD_BLOCK_KEY):
                self._take_unknown_key(key, entry, section, keys)
        return layer

    def _last(
        self, key: str, entry: keyfile.Entry, parse: Callable[[str], Value]
    ) -> tuple[Value, tuple[int, ...]]:
        """The effective value, and the line of each of its parts."""
        if entry.earlier:
            self._warn(entry.line, f"'{key}' overrides the one in line {entry.earlier[-1][1]}")
        value = self._value(key, entry.raw, entry.line, parse)
        return value, _line_of_each(value, entry.line) or (entry.line,)

    def _sum(
        self, key: str, entry: keyfile.Entry, parse: Callable[[str], Value]
    ) -> tuple[Value, tuple[int, ...]]:
        """Like `_last`, for values that are combined."""
        rules: list[object] = []
        lines: list[int] = []
        for raw, line in (*entry.earlier, (entry.raw, entry.line)):
            value = self._value(key, raw, line, parse)
            rules += value  # type: ignore[arg-type]
            lines += _line_of_each(value, line)
        return tuple(rules), tuple(lines) or (entry.line,)  # type: ignore[return-value]

    def _value(self, key: str, raw: str, line: int, parse: Callable[[str], Value]) -> Value:
        try:
            return parse(keyfile.decode(raw))
        except ValueError as error:
            raise self.error(line, f"{key}: {error}") from None

    def _take_old_block_key(self, group: keyfile.Group) -> None:
        entry = group.entries.get(_OLD_BLOCK_KEY)
        if entry is None:
            return
        blocked, lines = self._last(_OLD_BLOCK_KEY, entry, parse_names)
        # In QEMU's agent it replaces block-rpcs. Merging both cannot enable a blocked command.
        self.general = overlay(self.general, {"block-rpcs": blocked})
        if "block-rpcs" in self.origins:
            lines = self.origins["block-rpcs"].lines + lines
        self.origins["block-rpcs"] = Origin("general", self.path, lines)
        self._warn(
            entry.line,
            "config using deprecated 'blacklist' key, "
            "should be replaced with the 'block-rpcs' key.",
        )

    def _place(self, line: int) -> str:
        return f"error loading configuration from path: {self.path}, line {line}: "

    def _warn(self, line: int, text: str) -> None:
        self.warnings.append(f"{self.path}, line {line}: {text}")


def _unknown_rule(key: str, section: str, known: Iterable[str]) -> str:
    from qga.settings.spelling import nearest

    meant = nearest(key, known)
    advice = f"did you mean '{meant}'?" if meant else f"use one of {', '.join(known)}"
    return f"unknown key '{key}' in [{section}]; {advice}"


def _line_of_each(value: Value, line: int) -> tuple[int, ...]:
    return (line,) * (len(value) if isinstance(value, tuple) else 1)
