"""Completions of bash, zsh and fish for one program, from its description.

Commands, options and fixed words are written into them. For the names of guests and paths in a
guest they run `qgactl --complete`, whose output may come from a hostile guest: it is quoted, and
never evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qga.settings.config import DEFAULT_PATHS

from . import interface
from .interface import Argument, Option, Program

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
    'mapfile -t COMPREPLY < <(compgen -f -- "${cur#:}"); else _qgactl_offer guests; fi',
    "remote": "_qgactl_offer paths",
    "copy": "[[ $cur == : || $prev == : ]] || { compopt -o filenames; "
    'mapfile -t COMPREPLY < <(compgen -f -- "$cur"); }; '
    "[[ ${#COMPREPLY[@]} -gt 0 ]] || _qgactl_offer paths",
    "arguments": "[[ $value ]] || { compopt -o nospace; "
    'mapfile -t COMPREPLY < <(compgen -W "$(_qgactl_arguments)" -- "$cur"); }',
    "any": ":",
}


# The word under the cursor, up to a blank that is not quoted: bash takes it apart at colons. The
# answer to it is made relative to the part that bash replaces, and quoted.
BASH_OFFER = """\
_qgactl_offer() {
    local last='([^[:space:]\\]|\\\\.)*$' word part reply rest
    [[ ${COMP_LINE:0:COMP_POINT} =~ $last ]]
    # read without -r removes the backslashes of quoting, and evaluates nothing.
    IFS= read word <<<"${BASH_REMATCH[0]#--*=}"
    IFS= read part <<<"${cur#:}"
    while IFS= read -r reply; do
        rest=${reply#"${word%"$part"}"}
        printf -v rest %q "$rest"
        COMPREPLY+=("$rest")
        [[ $reply != *[:/] ]] || compopt -o nospace
    done < <(command qgactl --complete "$1" "$word" 2>/dev/null)
}""".splitlines()


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
            *(BASH_OFFER if program.commands else []),
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
        yield from _indent(_bash_words(_whole(program, command)), 2)
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
            colon = "|:" if option.kind == "address" and not _has_remote_paths(program) else ""
            value = BASH_VALUES.get(option.kind) or _bash_choice(option.metavar.split("|"))
            yield f"{'|'.join(option.flags)}{colon}) {value};;"
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
    """By how many words that are not options come before it."""
    guest, own = _guest_and_own(program)
    yield "local place=0 first="
    yield "for ((at += 1; at < COMP_CWORD; at++)); do"
    yield "    [[ ${COMP_WORDS[at]} == -* ]] || ((place += 1))"
    yield "    [[ $place == 1 && ! $first ]] && first=${COMP_WORDS[at]}"
    yield "done"
    if guest and own:
        # Without a guest the first word is one of the command's own.
        words = _bash_first_words(own[0])
        yield f'[[ $place == 0 || " {words} " == *" $first "* ]] || place=$((place - 1))'
    yield "case $place in"
    for place, argument in enumerate(own):
        value = BASH_VALUES.get(argument.kind) or _bash_choice(argument.choices)
        more = f"; [[ $first ]] || {BASH_VALUES['address']}" if guest and place == 0 else ""
        yield f"{'*' if argument.many else place}) {value}{more};;"
    if guest and not own:
        yield f"0) {BASH_VALUES['address']};;"
    yield "esac"


def _bash_first_words(argument: Argument) -> str:
    return "$names" if argument.kind == "command" else " ".join(argument.choices)


def _guest_and_own(program: Program) -> tuple[list[Argument], list[Argument]]:
    """The guest before a command's own arguments, and these."""
    is_guest = [each for each in program.arguments[:1] if each.name == "[GUEST]"]
    return is_guest, program.arguments[len(is_guest) :]


def _whole(program: Program, command: Program) -> Program:
    """A command with the options that all commands take."""
    own = {flag for option in command.options for flag in option.flags}
    own.add("--version")
    shared = [option for option in program.options if not own & set(option.flags)]
    return command._replace(options=[*command.options, *shared])


def _bash_choice(choices: Sequence[str]) -> str:
    return f'mapfile -t COMPREPLY < <(compgen -W "{" ".join(choices)}" -- "$cur")'


def _has_remote_paths(program: Program) -> bool:
    return any(argument.kind in ("remote", "copy") for argument in program.arguments)


ZSH_OFFER = """\\
_qgactl_offer() {
    local -a offered=(${(f)"$(command qgactl --complete $1 "${(Q)PREFIX}" 2>/dev/null)"})
    compadd -- ${offered:#*[:/]}
    compadd -S '' -- ${(M)offered:#*[:/]}
}""".splitlines()


def zsh(program: Program) -> str:
    """The file for zsh, to be named `_PROGRAM`."""
    lines = [f"#compdef {program.name}", ""]
    if _takes_arguments(program):
        lines += ["local -A keys=("]
        lines += [f"    {name} {_quoted(' '.join(keys))}" for name, keys in _keys().items()]
        lines += [")"]
    if program.commands:
        lines += ZSH_OFFER
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
            words = _zsh_arguments(_whole(program, command))
            lines += [f"    {command.name})", *_indent(words, 2), "        ;;"]
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
    for place, (title, values) in _zsh_places(program).items():
        value = values[0] if len(values) == 1 else f"{{{'; '.join(values)}}}"
        lines.append(f"    {_quoted(f'{place}:{_zsh_text(title)}:{value}')} \\")
    return [*lines[:-1], lines[-1].removesuffix(" \\")]


def _zsh_places(program: Program) -> dict[str, tuple[str, list[str]]]:
    """What to complete at each place; with a guest before them, arguments come one place later."""
    guest, own = _guest_and_own(program)
    found: dict[str, tuple[str, list[str]]] = {}
    for shift in (0, 1) if guest else (0,):
        for at, argument in enumerate([*guest, *own] if shift else own or guest):
            places = [f"{at + 1}"] if guest or not argument.many else []
            for place in [*places, *(["*"] if argument.many else [])]:
                _, values = found.setdefault(place, (argument.name, []))
                value = _zsh_value(argument.kind, argument.choices)
                value = _zsh_in_group(value) if guest and own else value
                if value not in values:
                    values.append(value)
    return dict(sorted(found.items(), reverse=True, key=lambda entry: entry[0] != "*"))


def _zsh_in_group(value: str) -> str:
    """An action as a command, to be one of several."""
    if value.startswith("("):
        return f"compadd {value[1:-1]}"
    return value[1:-1] if value.startswith("{") else value


def _zsh_option(option: Option, flag: str) -> str:
    text = _zsh_text(option.help)
    if not option.kind:
        return f"{flag}[{text}]"
    joint = "=" if flag.startswith("--") else "+"
    if option.optional_value:
        joint = "=-" if flag.startswith("--") else "-"
    value = _zsh_value(option.kind, tuple(option.metavar.split("|")))
    colons = "::" if option.optional_value else ":"
    return f"{flag}{joint}[{text}]{colons}{option.metavar}:{value}"


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
        "address": r'{compset -P "unix\:" && _files || _qgactl_offer guests}',
        "remote": "{_qgactl_offer paths}",
        "copy": "{_files; _qgactl_offer paths}",
        "any": "_message value",  # and, unlike nothing at all, options
    }[kind]


FISH_OFFERS = {
    "address": "(command qgactl --complete guests (commandline -ct | string unescape))",
    "remote": "(command qgactl --complete paths (commandline -ct | string unescape))",
    "copy": "(command qgactl --complete paths (commandline -ct | string unescape))",
}


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
        lines += _fish_words(program.name, _whole(program, command), seen)
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
        elif argument.kind in FISH_OFFERS:
            files = " -F" if argument.kind == "copy" else ""
            yield f"{start}{files} -a {_quoted(FISH_OFFERS[argument.kind])}"


def _fish_value(option: Option) -> str:
    if not option.kind or option.optional_value:
        return ""
    return {
        "file": " -r -F",
        "method": f" -x -a '{' '.join(DEFAULT_PATHS)}'",
        "commands": ' -x -a "(__fish_append , $names)"',
        "command": ' -x -a "$names"',
        "address": f" -r -F -a {_quoted(FISH_OFFERS['address'])}",
        "any": " -x",
        "choice": f" -x -a {_quoted(option.metavar.replace('|', ' '))}",
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
