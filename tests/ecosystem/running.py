"""Runs the tools of this environment on the host whose only guest is `web`."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.guest.vm import Guest
from tests.host.day import Day

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Done(NamedTuple):
    """`said`: what the tool wrote on either stream, without colours."""

    status: int
    said: str


def is_running(guest: Guest, command: str) -> bool:
    """Whether a program of the guest has this command line."""
    look = f"cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -q '[{command[0]}]{command[1:]}'"
    return guest.run(["/bin/sh", "-c", look], check=False).status == 0


def lines_of(web: Day, *argv: str) -> Iterator[str]:
    """What a tool writes, line by line as it comes."""
    with subprocess.Popen(
        command(*argv),
        cwd=web.work,
        env=web.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            yield COLOURS.sub("", line.rstrip())


def command(program: str, *arguments: str) -> list[str]:
    return [str(Path(sys.executable).parent / program), *arguments]


def run(web: Day, *argv: str, **variables: str) -> Done:
    """Run a tool in the directory `web.work`."""
    done = subprocess.run(
        command(*argv),
        cwd=web.work,
        env={**web.env, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    return Done(done.returncode, COLOURS.sub("", done.stdout))
