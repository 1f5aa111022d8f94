"""Typer's command and group classes, extended with the common features of qgactl.

The options of qgactl itself are also accepted after the command, and the word that names the guest
is removed before click parses the words. After the command, an option of the command itself wins,
such as the --timeout of exec.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from qga.ctl.guest_words import NOWHERE, Line, Place, WrongWords
from qga.ctl.settings import Settings
from qga.ctl.usage import UsageError
from qga.wording import suggestion

# The sections of the help, in their order.
GUESTS = "Guests"
LOOK = "Look"
RUN = "Run and copy"
SNAPSHOTS = "Snapshots"
POWER = "Power"
ACCOUNTS = "Accounts"
TROUBLESHOOT = "Troubleshoot"
ADVANCED = "Advanced"
SECTIONS = (GUESTS, LOOK, RUN, SNAPSHOTS, POWER, ACCOUNTS, TROUBLESHOOT, ADVANCED)

ONLY_BEFORE = {"version"}


# The exit status for wrong usage.
USAGE = 2


def class_of(place: Place, usage_status: int) -> type[TyperCommand]:
    """The class of a command that names its guest there."""
    return type("Command", (Command,), {"place": place, "usage_status": usage_status})


class Command(TyperCommand):
    """A command; `place` is where it names its guest, `usage_status` its status for wrong usage."""

    place: Place = NOWHERE
    usage_status = USAGE

    def get_params(self, ctx: Any) -> list[Any]:
        return [*super().get_params(ctx), *self.shared(ctx)]

    def shared(self, ctx: Any) -> list[Any]:
        """The options of qgactl that this command does not have itself."""
        if ctx.parent is None:
            return []
        own = {name for parameter in self.params for name in parameter.opts}
        return [
            parameter
            for parameter in ctx.parent.command.params
            if parameter.name not in ONLY_BEFORE and not own & set(parameter.opts)
        ]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        line = Line(str(self.name), args, self.get_params(ctx))
        settings = ctx.obj
        # An invalid command line must not keep the help from being printed.
        if not isinstance(settings, Settings) or line.has(*ctx.help_option_names):
            return list(super().parse_args(ctx, args))
        try:
            found = self.place.find(line, settings.surroundings(line.has("-c", "--connect")))
        except WrongWords as error:
            raise typer.BadParameter(str(error), ctx=ctx) from None
        try:
            rest = super().parse_args(ctx, line.args)
        except UsageError as error:
            # click leaves it out of some.
            error.ctx = error.ctx or ctx
            raise
        try:
            ctx.obj = (
                settings.with_example(str(self.name), self.place)
                .with_options(self._take_shared(ctx))
                .with_guest(found)
            )
        except typer.BadParameter as error:
            error.ctx = ctx
            raise
        return list(rest)

    def _take_shared(self, ctx: Any) -> dict[str, Any]:
        """Remove and return the given shared options, which the command itself does not know."""
        given = options_given(ctx, [parameter.name for parameter in self.shared(ctx)])
        for parameter in self.shared(ctx):
            # typer passes every parameter on to the function, which has none of these.
            ctx.params.pop(parameter.name, None)
        return given

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        options, *pieces = super().collect_usage_pieces(ctx)
        return [options, *filter(None, [self.place.metavar]), *pieces]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        write_help(self, ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        arguments, options = records(ctx, [*self.params, self.get_help_option(ctx)])
        if self.place.metavar:
            arguments.insert(0, ("[GUEST]", self.place.help))
        write_section(formatter, "Arguments", arguments)
        write_section(formatter, "Options", options)
        shared = ", ".join(max(parameter.opts, key=len) for parameter in self.shared(ctx))
        if shared:
            with formatter.section("Options of every command (see qgactl --help)"):
                formatter.write_text(shared)


class Commands(TyperGroup):
    """qgactl; its help lists the commands in sections."""

    usage_status = USAGE

    def named(self, args: list[str]) -> Any:
        """The command that the words name, whatever else is wrong with them, or this group."""
        words = Line(str(self.name), args, self.params).words()
        return self.commands.get(words[0], self) if words else self

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of their definition."""
        # click sorts them by name where typer is older than 0.8.
        return list(self.commands)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args:
            print(ctx.get_help())
            # Docker, kubectl and incus also exit with 0 here.
            raise typer.Exit
        return list(super().parse_args(ctx, args))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, *rest = args
        if name in self.commands:
            return name, self.commands[name], rest
        raise typer.BadParameter(self._not_a_command(name, rest), ctx=ctx)

    def _not_a_command(self, name: str, rest: list[str]) -> str:
        # `qgactl web ping`, as one types with virsh-like tools that take an object first.
        if rest and rest[0] in self.commands:
            words = shlex.join([rest[0], name, *rest[1:]])
            return f"the guest goes after the command: qgactl {words}"
        similar = get_close_matches(name, self.commands)
        advice = ""
        if similar:
            advice = f"; {suggestion(similar)}"
        elif Settings().surroundings(False).is_guest(name):
            advice = f"; it is a guest: qgactl COMMAND {shlex.quote(name)}"
        return f"no such command: {name}{advice}"

    def format_help(self, ctx: Any, formatter: Any) -> None:
        write_help(self, ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        width = max(map(len, self.commands))
        for section in SECTIONS:
            rows = [
                (name.ljust(width), summary(command))
                for name, command in self.commands.items()
                if getattr(command, "rich_help_panel", None) == section and not command.hidden
            ]
            write_section(formatter, section, rows)
        _, options = records(ctx, self.get_params(ctx))
        write_section(formatter, "Options, before or after the command", options)


def options_given(ctx: Any, names: Iterable[str]) -> dict[str, Any]:
    """The values of the options that the command line has."""
    given = {}
    for name in names:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            given[name] = ctx.params[name]
    return given


def summary(command: Any) -> str:
    """The first sentence of its help."""
    return " ".join((command.help or "").partition("\n\n")[0].split())


def records(ctx: Any, parameters: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """The rows of the help for arguments and for options."""
    arguments: list[Any] = []
    options: list[Any] = []
    for parameter in filter(None, parameters):
        record = parameter.get_help_record(ctx)
        if record:
            (arguments if parameter.param_type_name == "argument" else options).append(record)
    return arguments, options


def write_section(formatter: Any, title: str, rows: list[Any]) -> None:
    if rows:
        with formatter.section(title):
            formatter.write_dl(rows)


def write_help(command: Any, ctx: Any, formatter: Any) -> None:
    """Plain text in all versions of typer."""
    command.format_usage(ctx, formatter)
    command.format_help_text(ctx, formatter)
    command.format_options(ctx, formatter)
