"""What qgactl writes, made safe for the eyes.

Everything that a guest says may be hostile to the terminal it lands on: text of a guest is
never read as rich's markup, and characters that do not print (control characters, the ones
that turn the direction of writing, …) are shown as escapes. Programs that read our output
get JSON in ASCII, or, from `exec`, the very bytes.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from typing import Any

from rich.text import Text

from qga.client.results import AgentInfo, CommandInfo, ExecResult
from qga.ctl.tables import Row, yes
from qga.ctl.tables import printable as printable
from qga.ctl.tables import show_table as show_table
from qga.wording import counted

ASTRAL = 0x10000


def pretty_json(value: Any) -> str:
    """JSON to read: indented, as Unicode, but still JSON that any program reads."""
    text = json.dumps(value, indent=2, ensure_ascii=not speaks_unicode())
    return "\n".join(
        line if line.isprintable() else "".join(map(json_printable, line))
        for line in text.split("\n")
    )


def json_printable(char: str) -> str:
    if char.isprintable():
        return char
    return f"\\u{ord(char):04x}" if ord(char) < ASTRAL else json.dumps(char)[1:-1]


def speaks_unicode() -> bool:
    return sys.stdout.encoding.lower().replace("-", "").startswith("utf")


def compact_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f")


def say(text: str) -> None:
    """A line for the user, on stderr, so that stdout keeps to what was asked for."""
    sys.stderr.write(f"qgactl: {printable(text)}\n")


def reason_of(error: OSError) -> str:
    """What the system says, and of which file."""
    if error.filename and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return error.strerror or str(error)


def show_info(address: str, info: AgentInfo) -> None:
    """The agent's version, and its commands in a table."""
    disabled = sum(not command.enabled for command in info.commands)
    print(
        f"{printable(address)}: agent {printable(info.version)}, "
        f"{counted(len(info.commands), 'command')}, {disabled} of them disabled"
    )
    show_table(("Command", "State", "Answers success"), map(command_row, sorted(info.commands)))


def command_row(command: CommandInfo) -> Row:
    return (
        command.name,
        "enabled" if command.enabled else Text("DISABLED", "red"),
        yes(command.success_response),
    )


def tell_truncated(result: ExecResult) -> None:
    """Say which of a program's streams the agent has cut."""
    for truncated, name in (
        (result.stdout_truncated, "stdout"),
        (result.stderr_truncated, "stderr"),
    ):
        if truncated:
            say(f"the program's {name} may not be complete: the agent has not kept all of it")


def exec_json(result: ExecResult) -> dict[str, Any]:
    """The result with the names and the base64 of guest-exec-status."""
    end = {"exitcode": result.exitcode} if result.signal is None else {"signal": result.signal}
    return {
        **end,
        "out-data": base64.b64encode(result.stdout).decode("ascii"),
        "out-truncated": result.stdout_truncated,
        "err-data": base64.b64encode(result.stderr).decode("ascii"),
        "err-truncated": result.stderr_truncated,
    }
