"""What the program says to a command line and a configuration file, beside the originals."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.differences import BY_NAME
from tests.differential.agents import ENVIRONMENT, OURS, PATIENCE, SUITES, original

SERVE = "-m unix-listen -p @/socket -t @"

# As GLib, the original's log and ours begin a message.
HEADS = re.compile(
    r"\n?\*\* \(process:\d+\): (?:CRITICAL|WARNING) \*\*: [0-9:.]+: "
    r"|^\d+\.\d+: (?:critical|warning): |^qemu-ga: (?:error|warning): ",
    re.MULTILINE,
)


class Line(NamedTuple):
    """A command line, and patterns of what an original and ours answer; `@` is the scratch folder.

    conf: the text of a configuration file.
    """

    record: str
    arguments: str
    theirs: str
    ours: str
    conf: str = ""


DIFFERENT = [
    Line("version-and-lists", "-V", r"^0: QEMU Guest Agent [0-9.]+\n$", r"^0: .*\nqga [0-9.]+\n$"),
    Line("version-and-lists", "-h", r"^0: .* \[<options>\]\n", "^0: Usage: qemu-ga .*--doctor"),
    Line("version-and-lists", "-b help", "^0: (?!.*qga-)", "^0: .*\nqga-"),
    Line("version-and-lists", "--p", "'--pidfile' '--path'\n", "'--path' '--pidfile'\n"),
    Line("version-and-lists", "-é", r"option -- '\\xc3'", "option -- 'é'"),
    Line("options-read-twice", "-Z", "(?:option -- 'Z'.*){2}", "^1: [^\n]*\n[^\n]*'Z'\n$"),
    Line("options-read-twice", "-V -Z", "^0: QEMU.*option -- 'Z'", "^0: QEMU[^Z]*$"),
    Line("list-at-once", "-b help -Z", "^0: .*guest-ping\n", "^1: Unknown option"),
    Line("blacklist", "--blacklist=a -D", "^1: Unknown", "^0: .*block-rpcs=a\n.*deprecated"),
    Line(
        "blacklist",
        "-D",
        "^0: .*block-rpcs=\n",
        "^0: .*block-rpcs=a\n.*deprecated",
        "[general]\nblacklist=a\n",
    ),
    Line(
        "blacklist-adds",
        "-D",
        "^0: .*block-rpcs=a\n",
        "^0: .*block-rpcs=b,a\n",
        "[general]\nblacklist=a\nblock-rpcs=b\n",
    ),
    Line("dump-keys", "-D", "^0: .*\npidfile=/var/run/qemu-ga.pid\n", "^0: (?!.*pidfile=)"),
    Line("dump-keys", "-D -b a,b -b c,d", "block-rpcs=b,a,d,c\n", "block-rpcs=a,b,c,d\n"),
    Line("unknown-names", f"{SERVE} -b a=b", "^timeout: $", "^1: .*unknown command 'a=b'"),
    Line("unknown-keys", "-D", "^0: (?!.*foo)", "^0: .*'foo' in .general.", "[general]\nfoo=1\n"),
    Line("unknown-keys", "-D", "^0: ", "^1: .*mean .general.", "[General]\nblock-rpcs=a\n"),
    Line("unknown-keys", "-D", "^1: .*contains line", "^1: .*line 2: 'x' is", "[general]\nx\n"),
    Line("escape-in-a-list", "-D", "^-11: ", "^1: .*invalid escape", "[general]\nblock-rpcs=\\;"),
    Line("empty-values", f"{SERVE} -D --logfile=", "^0: .*logfile=\n", "^0: (?!.*logfile)"),
    Line("start-errors", "-m unix-listen", r"channel\n$", r"channel \(unix-listen has no default"),
    Line("start-errors", "-t /nonexistent", "unable to create state file", "does not exist or is"),
    Line("start-errors", "-m vsock-listen -p 1 -t @", "parsing address '1'", "is <cid>:<port>"),
    Line("start-errors", f"{SERVE} -l /nonexistent/l", "log file: No such", "file '/nonexist"),
    Line("start-errors", "-p /nonexistent -t @ -l @/log", "^1: $", "^1: .*'/nonexistent'"),
    Line("unknown-method", f"{SERVE} -m x", "type: x\nfailed to init", r"type: x \(use one of"),
    Line("only-ports", "-p @/file -t @", "^timeout", "^1: .*not a port or serial line"),
    Line("only-ports", "-m isa-serial -p @/file -t @", "^timeout", "^1: .*configure port"),
    Line("daemon-status", f"-d {SERVE} -f /nonexistent/pid", "^0: ", "^1: .*Could not create"),
]

CASES = [
    pytest.param(version, line, id=f"{version} {line.record}: {line.arguments} {line.conf!r}")
    for line in DIFFERENT
    for version in SUITES
    if any(release.startswith(version) for release in BY_NAME[line.record].releases)
]


@pytest.mark.parametrize(("version", "line"), CASES)
def test_what_differs_is_as_recorded(tmp_path: Path, version: str, line: Line) -> None:
    for program, said in ((original(version), line.theirs), (OURS, line.ours)):
        told = answer(program, line, tmp_path)
        assert re.search(said, told, re.DOTALL), told


def answer(program: Sequence[str], line: Line, scratch: Path) -> str:
    """The exit status, or `timeout` of what serves, and what it says, without heads."""
    (scratch / "conf").write_text(line.conf)
    (scratch / "file").touch()
    process = subprocess.Popen(
        [*program, *(word.replace("@", str(scratch)) for word in line.arguments.split())],
        env={**ENVIRONMENT, "QGA_CONF": str(scratch / "conf")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
    )
    try:
        out, err = process.communicate(timeout=PATIENCE if program == OURS else 1.5)
        status = str(process.returncode)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        status = "timeout"
    return f"{status}: {out}{HEADS.sub('', err)}"
