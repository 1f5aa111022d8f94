"""Discovery of command groups.

They come from the package `qga.commands`, then from entry points in the group `qga.commands` of
installed distributions, then from the `*.py` files in the plugin directory. A plugin that cannot be
loaded, or takes too long, is reported and skipped: the agent starts without it.
"""

from __future__ import annotations

import importlib
import os
import stat
import sys

from qga.errors import PluginError
from qga.plugin.deferred import standard_package
from qga.plugin.registry import CommandGroup
from qga.settings import trust

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Callable

    Complain = Callable[[str], None]
    """Takes a message about a plugin that is skipped."""

ENTRY_POINTS = "qga.commands"

PLUGIN_MODULE = "qga_plugin_"
"""The prefix of module names for files in the plugin directory."""


def discover(plugin_dir: str | None, complain: Complain) -> list[type[CommandGroup]]:
    """All groups of this installation, the standard ones first.

    A plugin that fails to import, or that others can write to, is skipped and reported to
    `complain`.
    """
    return [*standard_groups(), *plugins(plugin_dir, complain)]


def plugins(plugin_dir: str | None, complain: Complain) -> list[type[CommandGroup]]:
    """As `discover`, without the standard groups."""
    return [*_entry_point_groups(complain), *_folder_groups(plugin_dir, complain)]


def groups_in(module: ModuleType) -> list[type[CommandGroup]]:
    """The groups that `module` itself defines."""
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, CommandGroup)
        and value.__module__ == module.__name__
    ]


def standard_groups() -> list[type[CommandGroup]]:
    """All groups of the package `qga.commands`."""
    package = standard_package()
    # Sorted: the order of os.listdir is that of the filesystem, and guest-info shows it.
    names = sorted(name for name in _modules_of(package) if not name.startswith("_"))
    modules = [importlib.import_module(f"qga.commands.{name}") for name in names]
    return [group for module in modules for group in groups_in(module)]


def _modules_of(package: ModuleType) -> list[str]:
    try:
        files = [name for folder in package.__path__ for name in os.listdir(folder)]
    except NotADirectoryError:  # in an archive
        from pkgutil import iter_modules

        return [module.name for module in iter_modules(package.__path__)]
    return [name[:-3] for name in files if name.endswith(".py")]


def _entry_point_groups(complain: Complain) -> list[type[CommandGroup]]:
    """Groups from entry points of installed distributions: a group or a module each."""
    if not any(map(_mentions_entry_points, sys.path)):
        return []  # importing importlib.metadata takes longer than the rest of the start
    from importlib.metadata import entry_points
    from types import ModuleType

    from qga.plugin.time_limit import time_limit

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
        # A plugin that calls sys.exit() must not stop the agent.
        except (Exception, SystemExit) as error:
            complain(f"plugin {point.name} ({point.value}) skipped: {_reason(error)}")
    return groups


def _mentions_entry_points(folder: str) -> bool:
    try:
        # An empty entry of sys.path is the current directory.
        names = os.listdir(folder or ".")
    except OSError:
        return False
    section = f"[{ENTRY_POINTS}]".encode()
    for name in names:
        if not name.endswith((".dist-info", ".egg-info")):
            continue
        try:
            with open(os.path.join(folder, name, "entry_points.txt"), "rb") as file:
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
        complain(f"plugin directory {folder} skipped: {_reason(error)}")
        return groups
    if names:
        from qga.plugin.time_limit import time_limit
    for name in names:
        path = os.path.join(folder, name)
        try:
            with time_limit():
                groups += groups_in(_load_file(path, name[:-3]))
        except (Exception, SystemExit) as error:
            complain(f"plugin {path} skipped: {_reason(error)}")
    return groups


def _load_file(path: str, name: str) -> ModuleType:
    from importlib.util import module_from_spec, spec_from_file_location

    _refuse_if_writable(path)
    # The prefix keeps a plugin time.py from replacing the module time.
    spec = spec_from_file_location(PLUGIN_MODULE + name, path)
    if spec is None or spec.loader is None:
        raise PluginError("not a Python source file")
    module = module_from_spec(spec)
    sys.modules[module.__name__] = module  # typing.get_type_hints looks here
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


def _refuse_if_writable(path: str) -> None:
    """Raise PluginError if anyone but root or the agent's user can write to `path`."""
    mode = os.stat(path).st_mode
    # Importing a FIFO would wait for a writer.
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise PluginError(f"{path} is neither a regular file nor a directory")
    try:
        trust.require(path)
    except trust.Untrusted as error:
        raise PluginError(str(error)) from None


def _reason(error: BaseException) -> str:
    if isinstance(error, (PluginError, OSError)):
        return str(error)
    return f"{type(error).__name__}: {error}"
