"""All cases, and the scratch folder that they find.

A case is named by what it shows; the names are what `differences` refers to.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.differential import cases_commands, cases_exec, cases_files, cases_protocol

PROTOCOL = [
    *cases_protocol.FRAMING,
    *cases_protocol.TOP_LEVEL,
    *cases_protocol.NUMBERS,
    *cases_protocol.KEYWORDS,
    *cases_protocol.STRUCTURE,
    *cases_protocol.STRAY,
    *cases_protocol.STRINGS,
    *cases_protocol.IDS,
    *cases_protocol.ENVELOPE,
]
COMMANDS = [
    *cases_commands.SYNC,
    *cases_commands.INFORMATION,
    *cases_files.FILES,
    *cases_exec.EXEC,
]
LIMITS = [*cases_protocol.LIMITS, *cases_exec.LIMITS]

CASES = [*PROTOCOL, *COMMANDS, *LIMITS]


def lay_out(scratch: Path) -> None:
    """Make `scratch` anew, always with the same content."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    (scratch / "text").write_bytes(cases_files.TEXT)
    (scratch / "empty").touch()
    (scratch / "large").write_bytes(bytes(range(251)) * 4000)
    (scratch / "script").write_text('echo "script $1"\n')
    (scratch / "script").chmod(0o755)
    (scratch / "folder").mkdir()
    (scratch / "link").symlink_to("text")
    (scratch / "dangling").symlink_to("nowhere")
    os.mkfifo(scratch / "fifo")
