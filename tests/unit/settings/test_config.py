"""Defaults, overlays, channels, and --dump-conf as the inverse of reading."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qga.errors import ConfigError
from qga.settings import configfile
from qga.settings.config import (
    DEFAULT_PATHS,
    NO_ORIGINS,
    ChannelConfig,
    Config,
    build,
    overlay,
)
from qga.settings.dump import dump
from qga.settings.values import (
    PROFILES,
    parse_boolean,
    parse_cids,
    parse_names,
    parse_positive,
)
from qga.wire.payload import MAX_MESSAGE
from tests.differences import differs

if TYPE_CHECKING:
    from qga.settings.config import Layer


def from_text(text: str, options: Layer | None = None) -> Config:
    file = configfile.parse(text, "qemu-ga.conf")
    return build(overlay(file.general, options or {}), file.channels)


def test_defaults() -> None:
    config = build({})
    assert config == Config()
    assert config.channels == (
        ChannelConfig("main", "virtio-serial", "/dev/virtio-ports/org.qemu.guest_agent.0"),
    )
    assert config.pidfile is None
    assert config.statedir == "/var/run"


def test_every_key_of_general() -> None:
    text = """[general]
daemon=true
method=vsock-listen
path=3:1234
logfile=/l
pidfile=/p
fsfreeze-hook=/h
statedir=/s
verbose=1
retry-path=true
block-rpcs=a, b ,,c
allow-rpcs=d
allow-cids=2,1
max-clients=3
baud=115200
plugin-dir=/plugins
"""
    main = ChannelConfig(
        method="vsock-listen",
        path="3:1234",
        block_rpcs=("a", "b", "c"),
        allow_rpcs=("d",),
        allow_cids=(2, 1),
        max_clients=3,
        baud=115200,
    )
    assert from_text(text) == Config(
        (main,),
        daemonize=True,
        logfile="/l",
        pidfile="/p",
        fsfreeze_hook="/h",
        statedir="/s",
        verbose=True,
        retry_path=True,
        plugin_dir="/plugins",
    )


def test_scalars_replace_and_lists_of_commands_add_up() -> None:
    text = "[general]\nmethod=isa-serial\nblock-rpcs=a\nallow-rpcs=x\n"
    main = from_text(
        text, {"method": "virtio-serial", "block-rpcs": ("b",), "allow-rpcs": ("y",)}
    ).main
    assert main.method == "virtio-serial"
    assert main.block_rpcs == ("a", "b")
    assert main.allow_rpcs == ("x", "y")


def test_each_method_has_its_default_path_or_needs_one() -> None:
    for method, path in DEFAULT_PATHS.items():
        if path:
            assert build({"method": method}).main.path == path
        else:
            with pytest.raises(ConfigError, match=r"^must specify a path for this channel"):
                build({"method": method})


def test_an_empty_value_takes_back_what_the_file_has_set() -> None:
    text = "[general]\nlogfile=/l\nfsfreeze-hook=/h\npidfile=/p\npath=/dev/x\n"
    nothing: Layer = {"logfile": "", "fsfreeze-hook": "", "pidfile": "", "path": ""}
    assert from_text(text, nothing) == Config()


def test_a_daemon_has_a_pid_file_even_when_none_is_named() -> None:
    assert build({"daemon": True}).pidfile == "/var/run/qemu-ga.pid"


def test_paths_do_not_depend_on_the_working_directory() -> None:
    layer: Layer = {"method": "unix-listen", "path": "s", "statedir": "t", "logfile": "l"}
    config = build(layer)
    here = os.getcwd()
    assert config.main.path == f"{here}/s"
    assert (config.statedir, config.logfile) == (f"{here}/t", f"{here}/l")


def test_a_channel_of_its_own() -> None:
    text = """[general]
block-rpcs=guest-exec
max-clients=4
[channel monitoring]
method=unix-listen
path=/run/monitor.sock
allow-rpcs=guest-ping,guest-info
block-rpcs=
allow-cids=
baud=9600
[channel second]
path=/dev/virtio-ports/second
"""
    config = from_text(text)
    assert [channel.name for channel in config.channels] == ["main", "monitoring", "second"]
    assert config.channels[1] == ChannelConfig(
        "monitoring",
        "unix-listen",
        "/run/monitor.sock",
        allow_rpcs=("guest-ping", "guest-info"),
        block_rpcs=(),
        allow_cids=(),
        max_clients=4,
        baud=9600,
    )


def test_a_channel_inherits_what_it_leaves_out_options_included() -> None:
    text = "[general]\nblock-rpcs=a\n[channel second]\npath=/dev/virtio-ports/second\n"
    config = from_text(text, {"block-rpcs": ("b",), "path": "/dev/first"})
    assert config.channels[1].block_rpcs == ("a", "b")
    assert config.channels[1].path == "/dev/virtio-ports/second"


def test_two_channels_on_one_path_are_refused() -> None:
    with pytest.raises(
        ConfigError, match="line 2: the main channel already uses virtio-serial /dev/virt"
    ):
        from_text("[general]\n[channel second]\n")
    text = "[channel a]\nmethod=isa-serial\n[channel b]\nmethod=isa-serial\n"
    with pytest.raises(ConfigError, match="line 3: the channel 'a' already uses isa-serial"):
        from_text(text)


def test_a_channel_without_its_path_is_named_by_its_line() -> None:
    with pytest.raises(ConfigError) as caught:
        from_text("[general]\n\n[channel x]\nmethod=unix-listen\n")
    assert str(caught.value).startswith(
        "error loading configuration from path: qemu-ga.conf, line 3: "
        "must specify a path for this channel"
    )


@pytest.mark.parametrize(("text", "value"), [("true ", True), ("1", True), ("0", False)])
def test_booleans(text: str, value: bool) -> None:
    assert parse_boolean(text) is value


@pytest.mark.parametrize("text", ["", "yes", "TRUE", "2", " 1"])
def test_no_booleans(text: str) -> None:
    with pytest.raises(ValueError, match="use true, false, 1 or 0"):
        parse_boolean(text)


@differs("names-trimmed")
def test_names_are_trimmed() -> None:
    assert parse_names("a, b ,,c,") == ("a", "b", "c")


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "1.5", "\u0663"])
def test_no_positive_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="whole number"):
        parse_positive(text)


def test_cids() -> None:
    assert parse_cids("2, 1,4294967295") == (2, 1, 4294967295)
    with pytest.raises(ValueError, match="invalid vsock CID"):
        parse_cids("4294967296")
    with pytest.raises(ValueError, match="'host' is not a whole number"):
        parse_cids("host")


NAMES = st.lists(st.from_regex(r"[a-z-]+|[^\s,\0\ud800-\udfff]+", fullmatch=True)).map(tuple)
TEXTS = st.text().map(lambda text: text.replace("\0", ""))
PATHS = TEXTS.map(lambda text: f"/{text}")
NO_OR_PATH = st.none() | PATHS
CIDS = st.lists(st.integers(0, 2**32 - 1)).map(tuple)
POSITIVE = st.integers(1, 10**9)
SECONDS = st.integers(0, 10**9)
NO_OR_POSITIVE = st.none() | POSITIVE
PATTERNS = st.lists(st.sampled_from(["/etc/*.conf", "/var/log/", "/a b/**", "/[!'x]?"])).map(tuple)
PROGRAMS = st.lists(st.sampled_from(["/bin/df", "/a* ...", "/b ';' \"*\" x", '/c ""'])).map(tuple)
RULES = {
    "profile": st.sampled_from(PROFILES),
    "exec_allow": st.none() | PROGRAMS,
    "exec_user": st.none() | st.sampled_from(["nobody", " x "]),
    "exec_users": st.none() | st.sampled_from([(), ("nobody",), ("ci-*", "web")]),
    "exec_environment": st.sampled_from([None, "keep", "drop"]),
    "exec_terminal": st.sampled_from([None, True, False]),
    "exec_timeout": NO_OR_POSITIVE,
    "exec_memory": NO_OR_POSITIVE,
    "exec_cpu": st.none() | st.sampled_from([0.01, 0.5, 1.0, 2.25]),
    "exec_processes": NO_OR_POSITIVE,
    "exec_cpu_seconds": NO_OR_POSITIVE,
    "exec_open_files": NO_OR_POSITIVE,
    "exec_file_size": NO_OR_POSITIVE,
    "exec_output": NO_OR_POSITIVE,
    "files_read": st.none() | PATTERNS,
    "files_write": st.none() | PATTERNS,
    "files_follow_symlinks": st.booleans(),
    "accounts_allow": st.none() | st.lists(st.sampled_from(["root", "web-*"])).map(tuple),
    "connect_allow": st.none()
    | st.lists(st.sampled_from(["127.0.0.1:22", "[::1]:1-9", "unix:/run/*"])).map(tuple),
    "limits_handles": NO_OR_POSITIVE,
    "limits_children": NO_OR_POSITIVE,
    "limits_captured": POSITIVE,
    "limits_stdin": POSITIVE,
    "limits_message": st.integers(1024, MAX_MESSAGE),
    "origins": st.just(NO_ORIGINS),
}
CHANNEL_FIELDS = {
    **RULES,
    "method": st.sampled_from(tuple(DEFAULT_PATHS)),
    "path": PATHS,
    "allow_rpcs": NAMES,
    "block_rpcs": NAMES,
    "allow_cids": CIDS,
    "max_clients": POSITIVE,
    "baud": POSITIVE,
}
NAME = st.from_regex("(?!main$)[A-Za-z0-9._-]+", fullmatch=True)
OTHERS = st.lists(
    st.builds(ChannelConfig, name=NAME, **CHANNEL_FIELDS),
    max_size=3,
    unique_by=(lambda channel: channel.name, lambda channel: (channel.method, channel.path)),
)
CHANNELS = st.builds(
    lambda main, others: (main, *others),
    st.builds(ChannelConfig, name=st.just("main"), **CHANNEL_FIELDS),
    OTHERS,
)


def sensible(config: Config) -> bool:
    paths = [(channel.method, channel.path) for channel in config.channels]
    return len(paths) == len(set(paths)) and not (config.daemonize and config.pidfile is None)


def with_inherited_rules(config: Config) -> Config:
    """What is None nobody has set, and of the rules for files both are set or none."""

    def rules(source: Any, below: Any) -> dict[str, Any]:
        found = {field: getattr(source, field) for field in RULES}
        found = {
            field: getattr(below, field) if value is None else value
            for field, value in found.items()
        }
        if None in (found["files_read"], found["files_write"]):
            found["files_read"] = found["files_write"] = None
        return found

    main, *others = config.channels
    main = main._replace(**rules(main, ChannelConfig()))
    others = [channel._replace(**rules(channel, main)) for channel in others]
    return config._replace(channels=(main, *others))


CONFIGS = (
    st.builds(
        Config,
        daemonize=st.booleans(),
        logfile=NO_OR_PATH,
        pidfile=NO_OR_PATH,
        fsfreeze_hook=NO_OR_PATH,
        fsfreeze_hook_timeout=POSITIVE,
        fsfreeze_exclude=NAMES,
        freeze_timeout=SECONDS,
        fsfreeze_orphan_timeout=SECONDS,
        fsfreeze_reply_timeout=SECONDS,
        command_timeout=SECONDS,
        statedir=PATHS,
        verbose=st.booleans(),
        retry_path=st.booleans(),
        plugin_dir=NO_OR_PATH,
        channels=CHANNELS,
        limits_threads=POSITIVE,
    )
    .map(with_inherited_rules)
    .filter(sensible)
)


@given(CONFIGS)
def test_a_dumped_configuration_reads_back_the_same(config: Config) -> None:
    assert from_text(dump(config)) == config


def test_the_order_of_the_dump() -> None:
    keys = [line.partition("=")[0] for line in dump(Config(logfile="/l")).splitlines()]
    assert keys[:9] == ["[general]", "daemon", "method", "path", "logfile", "statedir", "verbose",
                        "retry-path", "block-rpcs"]  # fmt: skip
