"""The agent: joins channels, sessions, commands and the loop.

    channel ─bytes─▶ session: decoder ─request─▶ policy ─▶ command ─▶ handler
                     session ◀─bytes─ encoder ◀─────── result or QgaError ◀┘

`open` acquires the channels and may fail, `run` serves until `stop`, and `close` gives everything
back. There is no command-specific code here.
"""

from __future__ import annotations

import os
import sys
import time
from importlib import import_module
from itertools import chain

from qga.channels import make_channels
from qga.channels.base import RETRY_INTERVAL
from qga.errors import ChannelError, ConfigError, PluginError, QgaError
from qga.loop import SLOW, Loop
from qga.memory import Memory
from qga.plugin import discovery, standard
from qga.plugin.registry import CommandGroup, Registry, command_names
from qga.policy.caller import Caller
from qga.policy.policy import Policy
from qga.policy.shares import Descriptors
from qga.programs.leftover_jobs import take_over_jobs
from qga.programs.open_files import raise_limit
from qga.service.state import State
from qga.serving.audit import Audit, Limit
from qga.serving.turns import Turns
from qga.wire import base64
from qga.worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from qga.channels.base import Channel
    from qga.plugin.entry import Command
    from qga.service.log import Log
    from qga.serving.session import Session
    from qga.settings.config import Config

_MOST_LINES = 200  # of a traceback; the error may quote a request

# What is otherwise imported at its first use: for JSON that is not plain, for arguments, to log a
# fault, for threads.
_NEEDED_WHILE_FROZEN = (
    *("json", "re", "qga.plugin.schema", "traceback"),
    *("ctypes", "queue", "threading"),
)


class Agent:
    """One running agent.

    loop, worker: where handlers run.
    config, log, state: the configuration, the log, and what survives a restart.
    audit: the audit trail.
    memory: how much of it is kept while something large passes.
    postponed: connections with a request that waits for `try_again`.
    turns: connections that wait until others have had their turn.
    descriptors: how many each channel may have open.
    frozen: whether the guest's filesystems are frozen.
    on_status: called with a line about what the agent serves, whenever that changes.
    """

    def __init__(self, config: Config, log: Log, state: State | None = None) -> None:
        self.config = config
        self.log = log
        self.state = state or State(config.statedir)
        self.frozen = self.state.frozen
        self.loop = Loop(lambda error: self.log_fault("the loop", error))
        self.audit = Audit(log, self.loop)
        self._faults = Limit(self.loop)
        self.descriptors = Descriptors(raise_limit(), config.channels)
        self.memory = Memory(self.loop)
        self.worker = Worker(self.loop, config.limits_threads, len(config.channels))
        self.registry = self._load_commands()
        self._channels = make_channels(self, config)
        self._warn_of_loopholes()
        self.postponed: set[Session] = set()
        self.turns = Turns(self.loop)
        self._stopped = False
        self.on_status: Callable[[str], None] | None = None

    def open(self) -> None:
        """Acquire all channels, or raise ChannelError.

        With `retry-path` a missing device is not an error. A daemon waits for it here, because it
        must not go to the background before it serves; otherwise `run` opens it when it appears.
        """
        for channel in self._channels:
            self._open_channel(channel)

    def run(self) -> None:
        """Serve until `stop`."""
        if self._stopped:
            return
        for channel in self._channels:
            channel.start()
        self._notify_groups(lambda group: group.start())
        take_over_jobs(self.loop, self.worker.submit)
        self.report_status()
        self.loop.run()

    def stop(self) -> None:
        """Make `run` return."""
        self._stopped = True
        self.loop.stop()

    def close(self) -> None:
        self._notify_groups(lambda group: group.stop())
        for channel in self._channels:
            channel.close()
        self.loop.close()

    def on_connect(self, caller: Caller) -> None:
        """A channel has a new connection."""
        self._notify_groups(lambda group: group.on_connect(caller))
        self.report_status()

    def on_disconnect(self, caller: Caller) -> None:
        """A channel has lost a connection."""
        self._notify_groups(lambda group: group.on_disconnect(caller))
        self.on_client_left(caller)
        self.report_status()

    def on_client_left(self, caller: Caller) -> None:
        """A client has left. The connection of a virtio port stays."""
        self._notify_groups(lambda group: group.on_client_left(caller))

    def channels_without_client(self) -> set[str]:
        """Names of the channels without a client."""
        return {channel.config.name for channel in self._channels if not channel.has_client}

    def freeze(self, seconds: int) -> None:
        """Behave as frozen: write nothing, and carry out only commands that are marked `frozen`.

        Called from a worker before the first filesystem is frozen.
        seconds: when to thaw without being asked to, also after a restart; 0 for never.
        Raises QgaError if the marker that outlives the agent cannot be made.
        """
        self._prepare_for_freeze()
        try:
            self.state.mark_frozen(seconds)
        except OSError as error:
            raise QgaError(f"failed to mark the agent as frozen: {error.strerror}") from error
        self.loop.call(lambda: self._notify_groups(lambda group: group.on_freeze()))
        self._set_frozen(True)

    def thaw(self) -> None:
        """Return to normal; called from a worker after the last filesystem was thawed."""
        if not self.frozen:
            return
        self._set_frozen(False)
        try:
            self.state.clear_frozen()
        except OSError as error:
            self.log.error(f"cannot remove the marker of the frozen state: {error.strerror}")
        self.loop.call(lambda: self._notify_groups(lambda group: group.on_thaw()))

    def _prepare_for_freeze(self) -> None:
        """Import, on a worker, what may be needed while frozen."""
        _import_needed_while_frozen()
        for deferred in self.registry.needed(frozen=True):
            deferred.load()
        self.loop.call(lambda: self._complete_needed(self.registry, frozen=True))

    def _complete_needed(self, registry: Registry, frozen: bool) -> None:
        for deferred in registry.needed(frozen):
            registry.complete(deferred, self)

    def complete(self, command: Command) -> None:
        """Make a command ready to be called. Call it on the loop."""
        if command.deferred is not None:
            self.registry.complete(command.deferred, self)

    def try_again(self) -> None:
        """Make the loop carry out the postponed requests. Any thread may call this."""
        self.loop.post(self._try_again)

    def _try_again(self) -> None:
        postponed, self.postponed = self.postponed, set()
        for session in postponed:
            session.try_again()

    def _set_frozen(self, frozen: bool) -> None:
        self.frozen = self.log.frozen = frozen
        sys.dont_write_bytecode = frozen  # an import would write it, and wait for the disk
        self.report_status()

    def report_status(self) -> None:
        """Pass to `on_status` what is served, and whether the filesystems are frozen."""
        if self.on_status is None:
            return
        served = [channel.config.path for channel in self._channels if channel.serves]
        awaited = [channel.config.path for channel in self._channels if not channel.serves]
        parts = ["filesystems are frozen"] if self.frozen else []
        parts += [f"serving {', '.join(served)}"] if served else []
        parts += [f"waiting for {', '.join(awaited)}"] if awaited else []
        text = "; ".join(parts)
        self.on_status(text[0].upper() + text[1:])

    def report_fault(self, name: str, error: BaseException) -> QgaError:
        """Return the answer for an exception other than QgaError, and log what needs a fix."""
        if isinstance(error, OSError) and error.strerror:
            where = f" '{_text_of(error.filename)}'" if error.filename else ""
            return QgaError(f"{name} failed{where}: {error.strerror}")
        command = self.registry.get(name)
        self.log_fault(name, error, is_secret=command is not None and bool(command.secret))
        try:
            reason = f"{type(error).__name__}: {error}"
        except Exception:  # raised by its __str__
            reason = type(error).__name__
        return QgaError(f"{name} failed: {reason}")

    def log_fault(self, name: str, error: BaseException, *, is_secret: bool = False) -> None:
        """Log an error in the code of a command or of the agent. Never raises.

        is_secret: whether the text of the error may quote a secret, and is left out.
        """
        if not self._faults.admits("any", f"faults of {name}", self.log.error):
            return
        try:
            from traceback import format_exception, format_tb

            if is_secret:
                lines = [*format_tb(error.__traceback__), f"{type(error).__name__} (text hidden)"]
            else:
                lines = format_exception(type(error), error, error.__traceback__)
            trace = "".join(lines)
        except Exception:  # no descriptor or memory is left for it
            trace = type(error).__name__
        self.log.error(f"error in {name}:")
        for line in _without_middle(trace.splitlines()):
            self.log.error(line)

    def report_slow(self, name: str, seconds: float) -> None:
        """Log what kept the loop from serving anybody else."""
        self.log.warning(
            f"{name} blocked the main loop for {seconds:.1f} s, and no client was served meanwhile",
            "slow",
            name=name,
        )

    def _load_commands(self) -> Registry:
        registry = Registry()
        registry.defer(standard.GROUPS)
        plugins = discovery.plugins(self.config.plugin_dir, self.log.error)
        self._check_names([*chain(*standard.GROUPS.values()), *command_names(plugins)])
        if self.frozen:
            _import_needed_while_frozen()
        self._complete_needed(registry, self.frozen)
        if plugins:
            self._add_plugins(registry, plugins)
        return registry

    def _add_plugins(self, registry: Registry, groups: list[type[CommandGroup]]) -> None:
        from qga.plugin.time_limit import time_limit

        for group in groups:
            try:
                with time_limit():
                    self._add_group(registry, group)
            except TimeoutError as error:
                self.log.error(f"{group.__module__}.{group.__name__} skipped: {error}")

    def _check_names(self, known: list[str]) -> None:
        """Raise ConfigError for a misspelt command name; warn about an unknown one."""
        named = [each for each in self.config.channels if each.allow_rpcs or each.block_rpcs]
        found = (unknown for each in named for unknown in Policy(each).unknown_names(known))
        for _, text, stops in dict.fromkeys(found):
            if stops:
                raise ConfigError(text)
            self.log.warning(text)

    def _warn_of_loopholes(self) -> None:
        for channel in self._channels:
            for sentence in channel.caller.policy.loopholes(self.registry):
                self.log.warning(f"channel {channel.caller.channel}: {sentence}")

    def _add_group(self, registry: Registry, group: type[CommandGroup]) -> None:
        try:
            registry.add(group(self), plugin=True)
        except PluginError as error:
            self.log.error(f"{group.__module__}.{group.__name__} skipped: {error}")
        except Exception as error:
            self.log_fault(f"{group.__module__}.{group.__name__}", error)

    def report_unheard(self, command: Command) -> None:
        """Notify the group that nobody got the reply; an error in it harms nobody."""
        try:
            command.group.on_unheard(command.name)
        except (Exception, SystemExit) as error:
            self.log_fault(type(command.group).__name__, error)

    def _notify_groups(self, notify: Callable[[CommandGroup], None]) -> None:
        """Call a method of each group; an error in one does not affect the others."""
        since = time.monotonic()
        for group in self.registry.groups:
            try:
                notify(group)
            except (Exception, SystemExit) as error:
                self.log_fault(type(group).__name__, error)
            before, since = since, time.monotonic()
            if since - before > SLOW:
                self.report_slow(type(group).__name__, since - before)

    def _open_channel(self, channel: Channel) -> None:
        complained = False
        while not self._stopped:
            try:
                channel.open()
                return
            except ChannelError as error:
                if not self.config.retry_path:
                    raise
                if not complained:
                    self.log.warning(f"{error}; waiting until it can be opened")
                    complained = True
            if not self.config.daemonize:
                return
            self.loop.call_later(RETRY_INTERVAL, self.loop.stop)
            self.loop.run()


def _import_needed_while_frozen() -> None:
    for name in _NEEDED_WHILE_FROZEN:
        import_module(name)
    base64.prepare()


def _text_of(filename: Any) -> str:
    """The file of an OSError: a path in the form it was given in, or a descriptor."""
    return os.fsdecode(filename) if isinstance(filename, (str, bytes)) else str(filename)


def _without_middle(lines: list[str]) -> list[str]:
    """At most _MOST_LINES of a traceback: the last frames and the error are at its end."""
    if len(lines) <= _MOST_LINES:
        return lines
    half = _MOST_LINES // 2
    return [*lines[: half - 1], "[the lines between are left out]", *lines[-half:]]
