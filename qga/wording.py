"""Numbers in sentences, for the agent and for the host's tools."""

from __future__ import annotations


def counted(count: int, one: str, many: str = "") -> str:
    """`1 file`, `2 files`. If a verb follows, pass both: "file is", "files are"."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"
