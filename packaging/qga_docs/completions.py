"""Completions of bash, zsh and fish for one program, from its description.

They start no program: what may stand somewhere is written into them.
"""

from __future__ import annotations

from collections.abc import Iterator

from qga.client.addresses import FORMS
from qga.settings.config import DEFAULT_PATHS

from . import interface
from .interface import Argument, Option, Program

# What an address begins with, where it is no name.
SCHEMES = " ".join(f"{scheme}:" for scheme in FORMS)

BASH_HELPERS = """\
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} value=
    # bash takes --option=value apart at the sign.
    if [[ $cur == = ]]; then
        cur= value=yes
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD-2]} value=yes
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
    f'else compopt -o nospace; mapfile -t COMPREPLY < <(compgen -W "{SCHEMES}" -- "$cur"); fi',
    "arguments": "[[ $value ]] || { compopt -o nospace; "
    'mapfile -t COMPREPLY < <(compgen -W "$(_qgactl_arguments)" -- "$cur"); }',
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
            *_bash_arguments(program),
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


def _bash_arguments(program: Program) -> Iterator[str]:
    """A function that prints the arguments of the agent's command that is being called."""
    if not _takes_arguments(program):
        return
    yield "_qgactl_arguments() {"
    yield "    local word"
    yield '    for word in "${COMP_WORDS[@]:0:COMP_CWORD}"; do'
    yield "        case $word in"
    for name, keys in _keys().items():
        yield f"        {name}) echo '{' '.join(keys)}';;"
    yield "        esac"
    yield "    done"
    yield "}"


def _bash_words(program: Program) -> Iterator[str]:
    flags = " ".join(flag for option in program.options for flag in option.flags)
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
    elif program.arguments:
        yield "    else"
        yield from _indent(_bash_positions(program), 2)
    yield "    fi;;"
    yield "esac"


def _bash_positions(program: Program) -> Iterator[str]:
    """By how many words that are no options stand before it."""
    yield "local place=0"
    yield "for ((at += 1; at < COMP_CWORD; at++)); do"
    yield "    [[ ${COMP_WORDS[at]} == -* ]] || ((place += 1))"
    yield "done"
    yield "case $place in"
    for place, argument in enumerate(program.arguments):
        value = BASH_VALUES.get(argument.kind) or _bash_choice(argument)
        yield f"{'*' if argument.many else place}) {value};;"
    yield "esac"


def _bash_choice(argument: Argument) -> str:
    return f'mapfile -t COMPREPLY < <(compgen -W "{" ".join(argument.choices)}" -- "$cur")'


def zsh(program: Program) -> str:
    """The file for zsh, to be named `_PROGRAM`."""
    lines = [f"#compdef {program.name}", ""]
    if _takes_arguments(program):
        lines += ["local -A keys=("]
        lines += [f"    {name} {_quoted(' '.join(keys))}" for name, keys in _keys().items()]
        lines += [")"]
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
        place = "*" if argument.many else f"{at + 1}"
        value = _zsh_value(argument.kind, argument.choices)
        lines.append(f"    {_quoted(f'{place}:{_zsh_text(argument.name)}:{value}')} \\")
    return [*lines[:-1], lines[-1].removesuffix(" \\")]


def _zsh_option(option: Option, flag: str) -> str:
    text = _zsh_text(option.help)
    if not option.kind:
        return f"{flag}[{text}]"
    joint = "=" if flag.startswith("--") else "+"
    if option.optional_value:
        joint = "=-" if flag.startswith("--") else "-"
    colons = "::" if option.optional_value else ":"
    return f"{flag}{joint}[{text}]{colons}{option.metavar}:{_zsh_value(option.kind)}"


def _zsh_text(text: str) -> str:
    return text.replace("[", "(").replace("]", ")").replace(":", "\\:")


def _zsh_value(kind: str, choices: tuple[str, ...] = ()) -> str:
    return {
        "choice": f"({' '.join(choices)})",
        "arguments": "{compadd -S '' -- ${=keys[${words[(r)(guest|qga)-*]}]}}",
        "file": "_files",
        "method": f"({' '.join(DEFAULT_PATHS)})",
        "command": "{compadd -a names}",
        "commands": "{_values -s , command $names}",
        # A colon by itself would be the end of it.
        "address": f'{{compset -P "unix:" && _files || compadd -S "" {SCHEMES}}}'.replace(
            ":", r"\:"
        ),
        "any": "_message value",  # and, unlike nothing at all, options
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
    for argument in program.arguments:
        if argument.kind == "command":
            yield f'{start[:-1]}; and not __fish_seen_subcommand_from {_names()}\' -a "$names"'
        elif argument.kind == "arguments":
            for called, keys in _keys().items():
                if keys:
                    seen = f"{start[:-1]}; and __fish_seen_subcommand_from {called}'"
                    yield f"{seen} -a {_quoted(' '.join(keys))}"
        elif argument.kind == "choice":
            words = " ".join(argument.choices)
            unseen = f"; and not __fish_seen_subcommand_from {words}'"
            yield f"{start[:-1]}{unseen} -a {_quoted(words)}"
        elif argument.kind == "file":
            yield f"{start} -F"


def _fish_value(option: Option) -> str:
    if not option.kind or option.optional_value:
        return ""
    return {
        "file": " -r -F",
        "method": f" -x -a '{' '.join(DEFAULT_PATHS)}'",
        "commands": ' -x -a "(__fish_append , $names)"',
        "command": ' -x -a "$names"',
        "address": f" -r -F -a '{SCHEMES}'",
        "any": " -x",
    }[option.kind]


def _names() -> str:
    return " ".join(command.name for command in interface.commands())


def _keys() -> dict[str, list[str]]:
    """What may stand behind each command of the agent: its arguments, each with its sign."""
    return {
        command.name: [f"{argument.strip('[]')}=" for argument in command.arguments]
        for command in interface.commands()
    }


def _takes_arguments(program: Program) -> bool:
    return any(
        argument.kind == "arguments" for each in program.commands for argument in each.arguments
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _indent(lines: list[str] | Iterator[str], depth: int) -> Iterator[str]:
    return ("    " * depth + line for line in lines)


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
