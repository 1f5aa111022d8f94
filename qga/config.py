"""What the administrator wants: defaults, then qemu-ga.conf, then the command line.

Each source yields a `Layer`, a value per configuration key; `overlay` puts one on another
(scalars: the last wins, lists of commands add up) and `build` turns the sum into a `Config`, which
nothing changes afterwards. `dump` is the inverse: what it writes reads back to the same Config.

A key that a `[channel NAME]` section leaves out has the value of `[general]`, so that a command
blocked there is not let in by a second door that forgot it. Method and path are a channel's own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple, Union

from qga import keyfile
from qga.errors import ConfigError

CONFIG_DIR = "/etc/qemu"
"""Where this distribution has the agent's configuration; a package of another one changes it."""

DEFAULT_CONFIG_PATH = f"{CONFIG_DIR}/qemu-ga.conf"
DEFAULT_METHOD = "virtio-serial"
DEFAULT_PIDFILE = "/var/run/qemu-ga.pid"
DEFAULT_STATEDIR = "/var/run"
DEFAULT_FSFREEZE_HOOK = f"{CONFIG_DIR}/fsfreeze-hook"

DEFAULT_PATHS = {
    "virtio-serial": "/dev/virtio-ports/org.qemu.guest_agent.0",
    "isa-serial": "/dev/ttyS0",
    "unix-listen": "",
    "vsock-listen": "",
}
"""The methods, each with the path that it has when none is given; "" where one must be given."""

HOST_CID = 2
"""The vsock address of the host: VMADDR_CID_HOST of <linux/vm_sockets.h>."""

_LAST_CID = 2**32 - 1

Value = Union[bool, int, str, tuple[str, ...], tuple[int, ...]]
Layer = dict[str, Value]


class ChannelConfig(NamedTuple):
    """One channel. `allow_rpcs` empty: every command; `block_rpcs` takes from what is allowed."""

    name: str
    method: str
    path: str
    allow_rpcs: tuple[str, ...] = ()
    block_rpcs: tuple[str, ...] = ()
    allow_cids: tuple[int, ...] = (HOST_CID,)
    max_clients: int = 16
    baud: int = 38400


class Config(NamedTuple):
    """The whole configuration. `channels` lists every channel, the main one first.

    `pidfile` is the pid file to write: None when there is none to write, which is so unless one
    was named or the agent becomes a daemon. `plugin_dir` None: no folder of plugins.
    """

    method: str = DEFAULT_METHOD
    path: str = DEFAULT_PATHS[DEFAULT_METHOD]
    daemonize: bool = False
    logfile: str | None = None
    pidfile: str | None = None
    fsfreeze_hook: str | None = None
    fsfreeze_hook_timeout: int = 120
    fsfreeze_exclude: tuple[str, ...] = ()
    freeze_timeout: int = 600
    command_timeout: int = 0
    statedir: str = DEFAULT_STATEDIR
    verbose: bool = False
    retry_path: bool = False
    block_rpcs: tuple[str, ...] = ()
    allow_rpcs: tuple[str, ...] = ()
    allow_cids: tuple[int, ...] = (HOST_CID,)
    max_clients: int = 16
    baud: int = 38400
    plugin_dir: str | None = None
    more_channels: tuple[ChannelConfig, ...] = ()

    @property
    def channels(self) -> tuple[ChannelConfig, ...]:
        main = ChannelConfig(
            name="main",
            method=self.method,
            path=self.path,
            allow_rpcs=self.allow_rpcs,
            block_rpcs=self.block_rpcs,
            allow_cids=self.allow_cids,
            max_clients=self.max_clients,
            baud=self.baud,
        )
        return (main, *self.more_channels)


class ChannelSection(NamedTuple):
    """A `[channel NAME]` section; `place` is where it stands, as messages name it."""

    name: str
    place: str
    layer: Layer


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


CHANNEL_KEYS: dict[str, Callable[[str], Value]] = {
    "method": parse_method,
    "path": str,
    "block-rpcs": parse_names,
    "allow-rpcs": parse_names,
    "allow-cids": parse_cids,
    "max-clients": parse_positive,
    "baud": parse_positive,
}
"""The keys of a [channel NAME] section, each with what reads its value."""

GENERAL_KEYS: dict[str, Callable[[str], Value]] = {
    "daemon": parse_boolean,
    "method": parse_method,
    "path": str,
    "logfile": str,
    "pidfile": str,
    "fsfreeze-hook": str,
    "statedir": str,
    "verbose": parse_boolean,
    "retry-path": parse_boolean,
    **CHANNEL_KEYS,
    "fsfreeze-hook-timeout": parse_positive,
    "fsfreeze-exclude": parse_names,
    "freeze-timeout": parse_seconds,
    "command-timeout": parse_seconds,
    "plugin-dir": str,
}
"""The keys of the [general] section, each with what reads its value."""

_LIST_KEYS = ("block-rpcs", "allow-rpcs")
_INHERITED_KEYS = tuple(key for key in CHANNEL_KEYS if key not in ("method", "path"))
_FIELDS = {"daemon": "daemonize"}  # the others are named as their keys, with _ for -
_FILE_KEYS = ("logfile", "pidfile", "fsfreeze-hook", "statedir", "plugin-dir")


def overlay(below: Layer, above: Layer) -> Layer:
    """`above` put on `below`: its scalars replace, its lists of commands add up."""
    merged = {**below, **above}
    for key in _LIST_KEYS:
        if key in below and key in above:
            merged[key] = (*below[key], *above[key])  # type: ignore[misc]
    return merged


def build(layer: Layer, sections: Iterable[ChannelSection] = ()) -> Config:
    """The configuration that a layer and the channel sections amount to. Raises ConfigError."""
    settings = {**layer, **_with_path(layer)}
    for key in _FILE_KEYS:
        if settings.get(key):
            settings[key] = _absolute(str(settings[key]))
        else:
            settings.pop(key, None)  # an empty value takes back what a lower layer has set
    if settings.get("daemon"):
        settings.setdefault("pidfile", DEFAULT_PIDFILE)
    fields = {_field(key): value for key, value in settings.items()}
    config = Config(**fields)  # type: ignore[arg-type]
    return config._replace(more_channels=_more_channels(config, layer, sections))


def dump(config: Config) -> str:
    """The text of a configuration file that reads back to the same configuration."""
    lines = ["[general]", *_dump_keys(GENERAL_KEYS, config)]
    for channel in config.more_channels:
        lines += ["", f"[channel {channel.name}]", *_dump_keys(CHANNEL_KEYS, channel)]
    return "\n".join(lines) + "\n"


def _with_path(layer: Layer) -> Layer:
    """Method and path of a channel, by default where it may be."""
    method = str(layer.get("method", DEFAULT_METHOD))
    path = str(layer.get("path") or DEFAULT_PATHS[method])
    if not path:
        raise ConfigError(f"must specify a path for this channel ({method} has no default path)")
    return {"method": method, "path": _absolute(path) if method == "unix-listen" else path}


def _absolute(path: str) -> str:
    """A daemon's working folder is /, and a dumped configuration may be read from anywhere."""
    if path.startswith("/"):
        return path
    try:
        return f"{os.getcwd()}/{path}"
    except FileNotFoundError:
        raise ConfigError(f"{path}: give a full path, for the working folder is gone") from None


def _more_channels(
    config: Config, general: Layer, sections: Iterable[ChannelSection]
) -> tuple[ChannelConfig, ...]:
    inherited = {key: general[key] for key in _INHERITED_KEYS if key in general}
    taken = {(config.method, config.path): "the main channel"}
    channels = []
    for section in sections:
        try:
            settings = {**inherited, **section.layer, **_with_path(section.layer)}
        except ConfigError as error:
            raise ConfigError(f"{section.place}{error}") from None
        fields = {_field(key): value for key, value in settings.items()}
        channel = ChannelConfig(section.name, **fields)  # type: ignore[arg-type]
        door = (channel.method, channel.path)
        if door in taken:
            raise ConfigError(
                f"{section.place}{taken[door]} is on {channel.method} {channel.path} already; "
                "give this channel a path of its own"
            )
        taken[door] = f"the channel '{channel.name}'"
        channels.append(channel)
    return tuple(channels)


def _field(key: str) -> str:
    return _FIELDS.get(key) or key.replace("-", "_")


def _dump_keys(keys: Iterable[str], source: Config | ChannelConfig) -> Iterable[str]:
    for key in keys:
        value = getattr(source, _field(key))
        if value is not None:
            yield f"{key}={_dump_value(value)}"


def _dump_value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return keyfile.encode(",".join(map(str, value)))
    return keyfile.encode(str(value))


def _whole_number(text: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdecimal()):
        raise ValueError(f"'{text}' is not a whole number")
    return int(digits)
