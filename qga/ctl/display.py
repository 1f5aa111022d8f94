"""Output that is safe for a terminal.

Text of a guest may be hostile. It is never interpreted as rich's markup, and characters that do not
print (control characters, bidirectional formatting, …) are printed as escapes. JSON is ASCII. Only
`exec`, `shell`, `cat` and `port` pass on the guest's bytes.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

from rich.text import Text

from qga.client.results import AgentInfo, CommandInfo, ExecResult, Release
from qga.ctl.standard_output import complain
from qga.ctl.tables import Row, manner, yes
from qga.ctl.tables import printable as printable
from qga.ctl.tables import show_table as show_table
from qga.ctl.yamltext import yaml as yaml
from qga.wording import counted

ASTRAL = 0x10000


def configure(*, quiet: bool, colourless: bool) -> None:
    """Set options for the rest of this process. What was turned on stays on."""
    manner.quiet |= quiet
    manner.coloured &= not colourless


def pretty_json(value: Any) -> str:
    """Indented JSON, in Unicode if stdout can encode that."""
    text = json.dumps(value, indent=2, ensure_ascii=not speaks_unicode())
    return "\n".join(
        line if line.isprintable() else "".join(map(json_printable, line))
        for line in text.split("\n")
    )


def json_printable(char: str) -> str:
    if char.isprintable():
        return char
    # Above U+FFFF, JSON needs a pair of surrogates.
    return f"\\u{ord(char):04x}" if ord(char) < ASTRAL else json.dumps(char)[1:-1]


def speaks_unicode() -> bool:
    return sys.stdout.encoding.lower().replace("-", "").startswith("utf")


def compact_json(value: Any) -> str:
    # DEL is the only control character that json leaves as it is.
    return json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f")


def say(text: str) -> None:
    """A line on stderr, so that stdout has results only."""
    complain(f"qgactl: {printable(text)}\n")


def note(text: str) -> None:
    """A line on stderr that is not an error; --quiet leaves it out."""
    if not manner.quiet:
        say(text)


def confirm(text: str) -> None:
    """A line on stdout: what was asked for is done; --quiet leaves it out."""
    if not manner.quiet:
        print(printable(text))


def is_quiet() -> bool:
    return manner.quiet


def show_info(guest: str, info: AgentInfo, release: Release | None) -> None:
    """The agent's version, and its commands in a table."""
    disabled = sum(not command.enabled for command in info.commands)
    ours = f" (qga {printable(release.version)})" if release else ""
    print(
        f"{printable(guest)}: agent {printable(info.version)}{ours}, "
        f"{counted(len(info.commands), 'command')}, {disabled} disabled"
    )
    show_table(("Command", "State", "Replies on success"), map(command_row, sorted(info.commands)))


def command_row(command: CommandInfo) -> Row:
    return (
        command.name,
        "enabled" if command.enabled else Text("DISABLED", "red"),
        yes(command.success_response),
    )


def report_truncated(result: ExecResult, guest: str = "") -> None:
    """Report which streams of a program the agent has truncated; `guest`: one of several."""
    where = f"{guest}: " if guest else ""
    for truncated, name in (
        (result.stdout_truncated, "stdout"),
        (result.stderr_truncated, "stderr"),
    ):
        if truncated:
            say(f"{where}the program's {name} may be incomplete: the agent did not keep all of it")


def exec_json(result: ExecResult) -> dict[str, Any]:
    """The result, with names and base64 as in guest-exec-status."""
    end = {"exitcode": result.exitcode} if result.signal is None else {"signal": result.signal}
    return {
        **end,
        "out-data": base64.b64encode(result.stdout).decode("ascii"),
        "out-truncated": result.stdout_truncated,
        "err-data": base64.b64encode(result.stderr).decode("ascii"),
        "err-truncated": result.stderr_truncated,
        **({"ended-by": result.ended_by} if result.ended_by else {}),
        **({"confinement": result.confinement} if result.confinement else {}),
    }
