"""Where command groups are found.

In this order: the package `qga.commands`, the entry points of the group `qga.commands` that
installed distributions declare, the `*.py` files of the plugin folder. A plugin that cannot be
taken in, or that takes too long, is reported and left out: the agent starts without it.
"""

from __future__ import annotations

import importlib
import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Callable

from qga.errors import ConfigError, PluginError
from qga.plugin.registry import CommandGroup
from qga.settings import trust

ENTRY_POINTS = "qga.commands"

PLUGIN_MODULE = "qga_plugin_"
"""The beginning of the names of modules that are loaded from the plugin folder."""

LOADING_TIME = 20.0
"""Seconds that a plugin may take; systemd gives the agent 90 for its whole start."""

Complain = Callable[[str], None]
"""Takes a sentence about a plugin that is left out."""


def discover(plugin_dir: str | None, complain: Complain) -> list[type[CommandGroup]]:
    """All groups that this installation has, the standard ones first.

    A plugin that fails to import, or that others than its owner may write, is left out with a
    sentence to `complain`.
    """
    groups = _standard_groups()
    for source in (_entry_point_groups, lambda log: _folder_groups(plugin_dir, log)):
        groups.extend(source(complain))
    return groups


class _Overdue(BaseException):
    """Not an Exception: a plugin that retries in a loop would catch that."""


@contextmanager
def time_limit() -> Iterator[None]:
    """Raise TimeoutError in code that takes over LOADING_TIME, whether it waits or is busy."""

    def give_up(_signal: int, _frame: FrameType | None) -> None:
        raise _Overdue

    try:
        before = signal.signal(signal.SIGALRM, give_up)
    except ValueError:  # another thread than the first gets no signals
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, LOADING_TIME, 1)  # and again, should that be swallowed
    try:
        yield
    except _Overdue:
        raise TimeoutError(f"it took over {LOADING_TIME:g} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def groups_in(module: ModuleType) -> list[type[CommandGroup]]:
    """The groups that `module` itself defines."""
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, CommandGroup)
        and value.__module__ == module.__name__
    ]


def _standard_groups() -> list[type[CommandGroup]]:
    try:
        package = importlib.import_module("qga.commands")
    except ModuleNotFoundError:
        raise ConfigError(
            "qga is not installed, so its commands are not found: `pip install .` first, "
            "or `pip install --editable .` to run it from its sources"
        ) from None
    names = sorted(
        name[:-3]
        for folder in package.__path__
        for name in os.listdir(folder)
        if name.endswith(".py") and not name.startswith("_")
    )
    modules = [importlib.import_module(f"qga.commands.{name}") for name in names]
    return [group for module in modules for group in groups_in(module)]


def _entry_point_groups(complain: Complain) -> list[type[CommandGroup]]:
    """Groups that installed distributions name; each entry point is a group or a module."""
    if not any(map(_mentions_entry_points, sys.path)):
        return []  # importlib.metadata costs more than the rest of the start
    from importlib.metadata import entry_points

    found = entry_points()
    if sys.version_info >= (3, 10):
        points = list(found.select(group=ENTRY_POINTS))
    else:
        points = list(found.get(ENTRY_POINTS, ()))
    groups: list[type[CommandGroup]] = []
    for point in points:
        try:
            with time_limit():
                target = point.load()
            groups += groups_in(target) if isinstance(target, ModuleType) else [_as_group(target)]
        except (Exception, SystemExit) as error:
            complain(f"plugin {point.name} ({point.value}) is left out: {_reason(error)}")
    return groups


def _mentions_entry_points(folder: str) -> bool:
    try:
        entries = [
            name for name in os.listdir(folder or ".") if name.endswith((".dist-info", ".egg-info"))
        ]
    except OSError:
        return False
    section = f"[{ENTRY_POINTS}]".encode()
    for entry in entries:
        try:
            with open(os.path.join(folder, entry, "entry_points.txt"), "rb") as file:
                if section in file.read():
                    return True
        except OSError:
            continue
    return False


def _as_group(target: object) -> type[CommandGroup]:
    if isinstance(target, type) and issubclass(target, CommandGroup):
        return target
    raise PluginError(f"{target!r} is neither a module nor a CommandGroup")


def _folder_groups(folder: str | None, complain: Complain) -> list[type[CommandGroup]]:
    if folder is None:
        return []
    groups: list[type[CommandGroup]] = []
    try:
        _refuse_if_writable(folder)
        names = sorted(name for name in os.listdir(folder) if name.endswith(".py"))
    except (OSError, PluginError) as error:
        complain(f"plugin folder {folder} is left out: {_reason(error)}")
        return groups
    for name in names:
        path = os.path.join(folder, name)
        try:
            with time_limit():
                groups += groups_in(_load_file(path, name[:-3]))
        except (Exception, SystemExit) as error:
            complain(f"plugin {path} is left out: {_reason(error)}")
    return groups


def _load_file(path: str, name: str) -> ModuleType:
    from importlib.util import module_from_spec, spec_from_file_location

    _refuse_if_writable(path)
    spec = spec_from_file_location(PLUGIN_MODULE + name, path)
    if spec is None or spec.loader is None:
        raise PluginError("it is no Python source file")
    module = module_from_spec(spec)
    sys.modules[module.__name__] = module  # where annotations are resolved
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


def _refuse_if_writable(path: str) -> None:
    """Raise PluginError when others than root or the agent's user could have written `path`."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise PluginError(f"{path} is neither a file nor a folder")
    try:
        trust.require(path)
    except trust.Untrusted as error:
        raise PluginError(str(error)) from None


def _reason(error: BaseException) -> str:
    if isinstance(error, (PluginError, OSError)):
        return str(error)
    return f"{type(error).__name__}: {error}"
