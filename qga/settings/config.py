"""The configuration: defaults, overridden by qemu-ga.conf, overridden by the command line.

Each source yields a `Layer`, which maps configuration keys to values. `overlay` merges two layers
(the upper one wins; lists of commands are combined), and `build` turns the result into an immutable
`Config`. qga.settings.dump is the inverse.

A key that a `[channel NAME]` section leaves out is inherited from `[general]`, so that a command
blocked there is not allowed by a channel that does not mention it. Method and path are not
inherited. Rules work the same way: `[files]` applies to all channels, `[files NAME]` to one. Their
keys are written `files.read` in a layer and `files_read` in a configuration.
"""

from __future__ import annotations

import os

from qga.errors import ConfigError
from qga.records import NamedTuple
from qga.settings.values import (
    DEFAULT_PATHS as DEFAULT_PATHS,
)
from qga.settings.values import (
    MAX_THREADS,
    MIB,
    PROFILES,
    parse_account,
    parse_accounts,
    parse_boolean,
    parse_cids,
    parse_environment,
    parse_message_size,
    parse_method,
    parse_names,
    parse_path_patterns,
    parse_positive,
    parse_profile,
    parse_programs,
    parse_seconds,
    parse_share,
    parse_size,
    parse_targets,
)
from qga.wire.payload import MAX_MESSAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Optional

    from qga.settings.values import Value

    Layer = dict[str, Value]

CONFIG_DIR = "/etc/qemu"
"""The directory of the agent's configuration; packages for other distributions change it."""

DEFAULT_CONFIG_PATH = f"{CONFIG_DIR}/qemu-ga.conf"
DEFAULT_METHOD = "virtio-serial"
DEFAULT_PIDFILE = "/var/run/qemu-ga.pid"
DEFAULT_STATEDIR = "/var/run"
DEFAULT_FSFREEZE_HOOK = f"{CONFIG_DIR}/fsfreeze-hook"

HOST_CID = 2
"""The vsock address of the host: VMADDR_CID_HOST of <linux/vm_sockets.h>."""


class Origin(NamedTuple):
    """Where a key was set: the section, the file, and the line of each of its values."""

    section: str
    path: str
    lines: tuple[int, ...]


class Origins(dict[str, Origin]):
    """The origin of each setting by its key.

    All are equal, so that configurations compare by their values only.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origins)

    __hash__ = None


NO_ORIGINS = Origins()


class ChannelConfig(NamedTuple):
    """One channel. `allow_rpcs` empty allows every command; `block_rpcs` takes precedence.

    A rule that is None allows everything; () allows nothing. A limit that is None is the system's.
    """

    name: str = "main"
    method: str = DEFAULT_METHOD
    path: str = DEFAULT_PATHS[DEFAULT_METHOD]
    profile: str = PROFILES[-1]
    allow_rpcs: tuple[str, ...] = ()
    block_rpcs: tuple[str, ...] = ()
    allow_cids: tuple[int, ...] = (HOST_CID,)
    max_clients: int = 16
    baud: int = 38400  # the speed that QEMU's agent sets
    exec_allow: Optional[tuple[str, ...]] = None
    exec_user: Optional[str] = None
    exec_users: Optional[tuple[str, ...]] = None
    exec_environment: Optional[str] = None
    exec_terminal: Optional[bool] = None
    exec_timeout: Optional[int] = None
    exec_memory: Optional[int] = None
    exec_cpu: Optional[float] = None
    exec_processes: Optional[int] = None
    exec_cpu_seconds: Optional[int] = None
    exec_open_files: Optional[int] = None
    exec_file_size: Optional[int] = None
    exec_output: Optional[int] = None
    files_read: Optional[tuple[str, ...]] = None
    files_write: Optional[tuple[str, ...]] = None
    files_follow_symlinks: bool = False
    accounts_allow: Optional[tuple[str, ...]] = None
    connect_allow: Optional[tuple[str, ...]] = None
    limits_handles: Optional[int] = None
    limits_children: Optional[int] = None
    limits_captured: int = 256 * MIB  # sixteen streams of the length that QEMU's agent keeps
    limits_stdin: int = 256 * MIB
    limits_message: int = MAX_MESSAGE
    origins: Origins = NO_ORIGINS


class Config(NamedTuple):
    """The whole configuration. `channels` lists every channel, the main one first.

    `pidfile` is None if no PID file is written. Times are in seconds, 0 for no limit.
    """

    channels: tuple[ChannelConfig, ...] = (ChannelConfig(),)
    daemonize: bool = False
    logfile: Optional[str] = None
    pidfile: Optional[str] = None
    fsfreeze_hook: Optional[str] = None
    fsfreeze_hook_timeout: int = 120
    fsfreeze_exclude: tuple[str, ...] = ()
    freeze_timeout: int = 600  # as long as Proxmox VE waits for a freeze
    fsfreeze_orphan_timeout: int = 30
    fsfreeze_reply_timeout: int = 5  # libvirt's own limit for most commands
    command_timeout: int = 0
    statedir: str = DEFAULT_STATEDIR
    verbose: bool = False
    retry_path: bool = False
    plugin_dir: Optional[str] = None
    limits_threads: int = MAX_THREADS

    @property
    def main(self) -> ChannelConfig:
        """The channel that [general] configures."""
        return self.channels[0]


DEFAULTS: dict[str, Any] = {**Config()._asdict(), **ChannelConfig()._asdict()}
"""The default of each field."""


class ChannelSection(NamedTuple):
    """The sections of a channel; `place` names the first one in messages."""

    name: str
    place: str
    layer: Layer
    origins: Origins = NO_ORIGINS


CHANNEL_KEYS: dict[str, Callable[[str], Value]] = {
    "method": parse_method,
    "path": str,
    "block-rpcs": parse_names,
    "allow-rpcs": parse_names,
    "allow-cids": parse_cids,
    "max-clients": parse_positive,
    "baud": parse_positive,
    "profile": parse_profile,
}
"""The keys of a [channel NAME] section, each with its parser."""

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
    "fsfreeze-orphan-timeout": parse_seconds,
    "fsfreeze-reply-timeout": parse_seconds,
    "command-timeout": parse_seconds,
    "plugin-dir": str,
}
"""The keys of the [general] section, each with its parser."""

RULE_KEYS: dict[str, dict[str, Callable[[str], Value]]] = {
    "exec": {
        "allow": parse_programs,
        "user": parse_account,
        "users": parse_accounts,
        "environment": parse_environment,
        "terminal": parse_boolean,
        "timeout": parse_positive,
        "memory": parse_size,
        "cpu": parse_share,
        "processes": parse_positive,
        "cpu-seconds": parse_positive,
        "open-files": parse_positive,
        "file-size": parse_size,
        "output": parse_size,
    },
    "files": {
        "read": parse_path_patterns,
        "write": parse_path_patterns,
        "follow-symlinks": parse_boolean,
    },
    "accounts": {"allow": parse_accounts},
    "connect": {"allow": parse_targets},
    "limits": {
        "handles": parse_positive,
        "children": parse_positive,
        "captured": parse_size,
        "stdin": parse_size,
        "message": parse_message_size,
        "threads": parse_positive,
    },
}
"""The sections with rules and limits, each key with its parser."""

ADDING_KEYS = (
    "exec.allow",
    "exec.users",
    "files.read",
    "files.write",
    "accounts.allow",
    "connect.allow",
)
"""Keys that may be repeated; their values are combined."""

AGENT_KEYS = ("limits.threads",)
"""Keys that apply to the whole agent and cannot be set for a channel."""

_LIST_KEYS = ("block-rpcs", "allow-rpcs")
_CHANNEL_RULES = tuple(
    f"{section}.{key}"
    for section, keys in RULE_KEYS.items()
    for key in keys
    if f"{section}.{key}" not in AGENT_KEYS
)
_INHERITED_KEYS = (*(key for key in CHANNEL_KEYS if key not in ("method", "path")), *_CHANNEL_RULES)
_FIELDS = {"daemon": "daemonize"}  # the others are named as their keys, with _ for -
_FILE_KEYS = ("logfile", "pidfile", "fsfreeze-hook", "statedir", "plugin-dir")
_FILE_RULES = ("files.read", "files.write")


def overlay(below: Layer, above: Layer) -> Layer:
    """Merge two layers: values of `above` win, lists of commands are combined."""
    merged = {**below, **above}
    for key in _LIST_KEYS:
        if key in below and key in above:
            merged[key] = (*below[key], *above[key])  # type: ignore[misc]
    return merged


def build(
    layer: Layer,
    sections: Iterable[ChannelSection] = (),
    origins: Origins = NO_ORIGINS,
    *,
    activated: bool = False,
) -> Config:
    """The configuration for a layer and the channel sections. Raises ConfigError.

    activated: whether the service manager passes the main channel's socket, and with it its path.
    """
    settings = {**layer, **_with_path(layer, required=not activated), **_complete(layer)}
    for key in _FILE_KEYS:
        if settings.get(key):
            settings[key] = _absolute(str(settings[key]))
        else:
            settings.pop(key, None)  # an empty value undoes the setting of a lower layer
    # In the foreground QEMU's agent writes no PID file: the service manager knows the process.
    if settings.get("daemon"):
        settings.setdefault("pidfile", DEFAULT_PIDFILE)
    fields = {field_of(key): value for key, value in settings.items()}
    of_main = {field: fields.pop(field) for field in ChannelConfig._fields if field in fields}
    main = ChannelConfig(origins=origins, **of_main)  # type: ignore[arg-type]
    channels = (main, *_more_channels(main, layer, sections))
    return Config(channels, **fields)  # type: ignore[arg-type]


def _with_path(layer: Layer, *, required: bool = True) -> Layer:
    """Method and path of a channel, with their defaults."""
    method = str(layer.get("method", DEFAULT_METHOD))
    path = str(layer.get("path") or DEFAULT_PATHS[method])
    # As with QEMU's agent, --dump-conf fails also: the file that it prints would not be valid.
    if required and not path:
        raise ConfigError(f"must specify a path for this channel ({method} has no default path)")
    if path and method == "unix-listen":
        path = _absolute(path)
    return {"method": method, "path": path}


def _absolute(path: str) -> str:
    """Make a path independent of the current directory: a daemon changes to /."""
    if path.startswith("/"):
        return path
    try:
        return os.path.join(os.getcwd(), path)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: use an absolute path, because the current directory no longer exists"
        ) from None


def _more_channels(
    main: ChannelConfig, general: Layer, sections: Iterable[ChannelSection]
) -> tuple[ChannelConfig, ...]:
    inherited = {key: general[key] for key in _INHERITED_KEYS if key in general}
    origins = {key: main.origins[key] for key in _INHERITED_KEYS if key in main.origins}
    taken = {(main.method, main.path): "the main channel"}
    channels = []
    for section in sections:
        try:
            settings = {**inherited, **section.layer, **_with_path(section.layer)}
        except ConfigError as error:
            raise ConfigError(f"{section.place}{error}") from None
        settings.update(_complete(settings))
        fields = {field_of(key): value for key, value in settings.items()}
        fields["origins"] = Origins({**origins, **section.origins})  # type: ignore[assignment]
        channel = ChannelConfig(section.name, **fields)  # type: ignore[arg-type]
        address = (channel.method, channel.path)
        if address in taken:
            raise ConfigError(
                f"{section.place}{taken[address]} already uses {channel.method} {channel.path}; "
                "give this channel another path"
            )
        taken[address] = f"the channel '{channel.name}'"
        channels.append(channel)
    return tuple(channels)


def _complete(layer: Layer) -> Layer:
    """Whoever sets only what may be read wants nothing to be written, and vice versa."""
    if not any(key in layer for key in _FILE_RULES):
        return {}
    return {key: layer.get(key, ()) for key in _FILE_RULES}


def field_of(key: str) -> str:
    return _FIELDS.get(key) or key.replace("-", "_").replace(".", "_")
