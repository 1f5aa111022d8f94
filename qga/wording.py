"""Numbers and suggestions in messages, for the agent and for the host's tools."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection


def counted(count: int, one: str, many: str = "") -> str:
    """`1 file`, `2 files`. If a verb follows, pass both: "file is", "files are"."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def suggestion(similar: Collection[str]) -> str:
    """`did you mean this or that?`; "" if nothing is similar."""
    return f"did you mean {' or '.join(similar)}?" if similar else ""
