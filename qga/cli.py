"""The main program of qemu-ga."""

from __future__ import annotations

import os
import sys

from qga.errors import ConfigError
from qga.service.log import Log, mark_levels, open_log
from qga.service.service_manager import passes_sockets
from qga.service.utf8 import use_utf8
from qga.settings import config, configfile, options
from qga.settings.config import Config
from qga.version import INTERFACE_VERSION, PROGRAM, __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run qemu-ga with these arguments (by default, sys.argv) and return the exit status."""
    if argv is None:
        use_utf8()
    mark_levels()
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except ConfigError as error:
        Log().error(str(error))
    except BrokenPipeError:
        pass  # the reader of our output, such as head, has exited
    except KeyboardInterrupt:
        Log().error("interrupted before the agent could start")
    return 1


def _run(argv: Sequence[str]) -> int:
    try:
        arguments = options.parse(argv)
    except options.OptionError as error:
        return _refuse_options(str(error))
    if arguments.action == "version":
        return _print(f"QEMU Guest Agent {INTERFACE_VERSION}\nqga {__version__}\n")
    if arguments.action == "help":
        return _print(options.format_help())
    if arguments.action == "doctor":
        return _diagnose(arguments)
    return _act(arguments, _load(arguments))


def _act(arguments: options.Arguments, settings: Config) -> int:
    if arguments.action == "dump-conf":
        from qga.settings.dump import dump

        return _print(dump(settings))
    if arguments.action == "list-commands":
        return _print(_list_commands(settings))
    if arguments.question is not None:
        return _explain(settings, arguments.question)
    return _serve(settings)


def _load(arguments: options.Arguments) -> Config:
    """The configuration from the file and the options, after printing the warnings about it."""
    path = arguments.config_path
    if path is None:
        path = os.environ.get("QGA_CONF", config.DEFAULT_CONFIG_PATH)
    try:
        file = configfile.read(path)
    except FileNotFoundError as error:
        if arguments.config_path is not None:
            raise ConfigError(
                f"error loading configuration from path: {path}, {error.strerror}"
            ) from None
        file = configfile.NO_FILE
    for warning in (*file.warnings, *arguments.warnings):
        Log().warning(warning)
    settings = config.overlay(file.general, arguments.settings)
    activated = passes_sockets(os.environ, os.getpid())
    return config.build(settings, file.channels, file.origins, activated=activated)


def _list_commands(settings: Config) -> str:
    """The names of all commands of this guest, one per line."""
    from qga.plugin import discovery, registry

    groups = discovery.discover(settings.plugin_dir, Log().warning)
    return "".join(f"{name}\n" for name in registry.command_names(groups))


def _explain(settings: Config, question: options.Question) -> int:
    from qga.explain import explain

    found = explain(settings, question.channel, question.command, question.words)
    _print(found.text)
    return 0 if found.allowed else 1


def _diagnose(arguments: options.Arguments) -> int:
    sys.dont_write_bytecode = True  # it would block if the filesystems are frozen
    from qga.doctor import examine

    report = examine(arguments)
    _print(report.json() if arguments.json else report.text())
    return 0 if report.well else 1


def _serve(settings: Config) -> int:
    from qga import daemon

    try:
        daemon.open_standard_descriptors()
    except OSError as error:
        raise ConfigError(f"cannot open {os.devnull}: {error.strerror}") from None
    try:
        log = open_log(settings)
    except OSError as error:
        text = f"unable to open specified log file '{settings.logfile}': {error.strerror}"
        daemon.complain(Log(), text, "error initializing guest agent")
        return 1
    return daemon.run(settings, log)


def _refuse_options(text: str) -> int:
    program = sys.argv[0]
    if os.path.basename(program) == "__main__.py":
        program = PROGRAM
    sys.stderr.write(f"{program}: {text}\n")
    _print(f"Unknown option, try '{program} --help' for more information.\n")
    return 1


def _print(text: str) -> int:
    """Write to standard output. Raises ConfigError if that fails."""
    rest = text.encode("utf-8", "surrogateescape")
    try:
        while rest:
            rest = rest[os.write(1, rest) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ConfigError(f"cannot write to standard output: {error.strerror}") from None
    return 0
