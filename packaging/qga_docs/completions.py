"""Completions of bash, zsh and fish for one program, from its description.

They start no program: what may stand somewhere is written into them.
"""

from __future__ import annotations

from collections.abc import Iterator

from qga.config import DEFAULT_PATHS

from . import interface
from .interface import Option, Program

BASH_HELPERS = """\
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
    # bash takes --option=value apart at the sign.
    if [[ $cur == = ]]; then
        cur=
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD-2]}
    fi
    COMPREPLY=()"""

BASH_VALUES = {
    "file": 'compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur")',
    "method": 'mapfile -t COMPREPLY < <(compgen -W "$methods" -- "$cur")',
    "command": 'mapfile -t COMPREPLY < <(compgen -W "$names" -- "$cur")',
    "commands": "local list=; [[ $cur == *,* ]] && list=${cur%,*},; compopt -o nospace; "
    'mapfile -t COMPREPLY < <(compgen -P "$list" -W "$names" -- "${cur##*,}")',
    # The colon is one of bash's signs between words, too.
    "address": "if [[ $cur == : || $prev == : ]]; then compopt -o filenames; "
    'mapfile -t COMPREPLY < <(compgen -f -- "${cur#:}"); '
    'else compopt -o nospace; mapfile -t COMPREPLY < <(compgen -W "unix:" -- "$cur"); fi',
    "any": ":",
}


def bash(program: Program) -> str:
    """The file for bash."""
    function = "_" + program.name.replace("-", "_")
    return _text(
        [
            f"# Completions of {program.name} for bash.",
            f"{function}() {{",
            BASH_HELPERS,
            f"    local names='{_names()}' methods='{' '.join(DEFAULT_PATHS)}'",
            *_bash_commands(program),
            "}",
            f"complete -F {function} {program.name}",
        ]
    )


def _bash_commands(program: Program) -> Iterator[str]:
    if not program.commands:
        yield from _indent(_bash_words(program), 1)
        return
    yield "    local at command="
    yield "    for ((at = 1; at < COMP_CWORD; at++)); do"
    yield "        case ${COMP_WORDS[at]} in"
    yield f"        {'|'.join(command.name for command in program.commands)})"
    yield "            command=${COMP_WORDS[at]}"
    yield "            break;;"
    yield "        esac"
    yield "    done"
    yield "    case $command in"
    for command in program.commands:
        yield f"    {command.name})"
        yield from _indent(_bash_words(command), 2)
        yield "        ;;"
    yield "    '')"
    yield from _indent(_bash_words(program), 2)
    yield "        ;;"
    yield "    esac"


def _bash_words(program: Program) -> Iterator[str]:
    flags = " ".join(flag for option in program.options for flag in option.flags)
    first = program.arguments[0] if program.arguments else None
    yield "case $prev in"
    for option in program.options:
        if option.kind:
            colon = "|:" if option.kind == "address" else ""
            yield f"{'|'.join(option.flags)}{colon}) {BASH_VALUES[option.kind]};;"
    yield "*)"
    yield "    if [[ $cur == -* ]]; then"
    yield f'        mapfile -t COMPREPLY < <(compgen -W "{flags}" -- "$cur")'
    if program.commands:
        words = " ".join(command.name for command in program.commands)
        yield "    else"
        yield f'        mapfile -t COMPREPLY < <(compgen -W "{words}" -- "$cur")'
    elif first is not None and first.kind == "command":
        yield f"    elif [[ $prev == {program.name} ]]; then"
        yield f"        {BASH_VALUES['command']}"
    yield "    fi;;"
    yield "esac"


def zsh(program: Program) -> str:
    """The file for zsh, to be named `_PROGRAM`."""
    lines = [f"#compdef {program.name}", ""]
    lines += [f"local -a names=({_names()})", "local curcontext=$curcontext state line", ""]
    lines += _zsh_arguments(program)
    if program.commands:
        lines += ["", "case $state in", "commands)", "    local -a commands=("]
        lines += [f"        {_quoted(f'{c.name}:{c.summary}')}" for c in program.commands]
        lines += ["    )", "    _describe command commands", "    ;;", "arguments)"]
        lines += [
            "    curcontext=${curcontext%:*:*}:" + f"{program.name}-$line[1]:",
            "    case $line[1] in",
        ]
        for command in program.commands:
            lines += [f"    {command.name})", *_indent(_zsh_arguments(command), 2), "        ;;"]
        lines += ["    esac", "    ;;", "esac"]
    return _text(lines)


def _zsh_arguments(program: Program) -> list[str]:
    # -S: nothing behind -- is an option. -C: a state of its own for the words of a command.
    lines = ["_arguments -C -s -S \\"]
    for option in program.options:
        exclusive = f"({' '.join(option.flags)})" if len(option.flags) > 1 else ""
        for flag in option.flags:
            lines.append(f"    {_quoted(exclusive + _zsh_option(option, flag))} \\")
    if program.commands:
        return [*lines, "    '1: :->commands' \\", "    '*:: :->arguments'"]
    for at, argument in enumerate(program.arguments):
        last = at == len(program.arguments) - 1
        place = "*" if last and argument.kind == "any" else f"{at + 1}"
        lines.append(f"    {_quoted(f'{place}:{argument.name}:{_zsh_value(argument.kind)}')} \\")
    return [*lines[:-1], lines[-1].removesuffix(" \\")]


def _zsh_option(option: Option, flag: str) -> str:
    text = option.help.replace("[", "(").replace("]", ")")
    if not option.kind:
        return f"{flag}[{text}]"
    joint = "=" if flag.startswith("--") else "+"
    if option.optional_value:
        joint = "=-" if flag.startswith("--") else "-"
    colons = "::" if option.optional_value else ":"
    return f"{flag}{joint}[{text}]{colons}{option.metavar}:{_zsh_value(option.kind)}"


def _zsh_value(kind: str) -> str:
    return {
        "file": "_files",
        "method": f"({' '.join(DEFAULT_PATHS)})",
        "command": "{compadd -a names}",
        "commands": "{_values -s , command $names}",
        "address": '{compset -P "unix:" && _files || compadd -S "" unix:}',
        "any": " ",
    }[kind]


def fish(program: Program) -> str:
    """The file for fish."""
    lines = [f"# Completions of {program.name} for fish.", f"set -l names {_names()}"]
    lines += [f"complete -c {program.name} -f"]
    own = ""
    if program.commands:
        words = " ".join(command.name for command in program.commands)
        own = f"not __fish_seen_subcommand_from {words}"
    lines += _fish_words(program.name, program, own)
    for command in program.commands:
        lines.append(
            f"complete -c {program.name} -n {_quoted(own)} -a {command.name} "
            f"-d {_quoted(command.summary)}"
        )
        seen = f"__fish_seen_subcommand_from {command.name}"
        lines += _fish_words(program.name, command, seen)
    return _text(lines)


def _fish_words(name: str, program: Program, condition: str) -> Iterator[str]:
    start = f"complete -c {name}" + (f" -n {_quoted(condition)}" if condition else "")
    for option in program.options:
        flags = "".join(
            f" -l {flag[2:]}" if flag.startswith("--") else f" -s {flag[1:]}"
            for flag in option.flags
        )
        yield f"{start}{flags}{_fish_value(option)} -d {_quoted(option.help)}"
    if program.arguments and program.arguments[0].kind == "command":
        yield f'{start} -a "$names"'


def _fish_value(option: Option) -> str:
    if not option.kind or option.optional_value:
        return ""
    return {
        "file": " -r -F",
        "method": f" -x -a '{' '.join(DEFAULT_PATHS)}'",
        "commands": ' -x -a "(__fish_append , $names)"',
        "command": ' -x -a "$names"',
        "address": " -r -F -a unix:",
        "any": " -x",
    }[option.kind]


def _names() -> str:
    return " ".join(command.name for command in interface.commands())


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _indent(lines: list[str] | Iterator[str], depth: int) -> Iterator[str]:
    return ("    " * depth + line for line in lines)


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
