"""Compare the replies of our agent and of QEMU's in the same guest, member by member."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from . import differences
from .agent_socket import AgentSocket
from .differences import Difference

READ_ONLY = (
    "guest-fsfreeze-status",
    "guest-get-cpustats",
    "guest-get-disks",
    "guest-get-diskstats",
    "guest-get-fsinfo",
    "guest-get-host-name",
    "guest-get-memory-block-info",
    "guest-get-memory-blocks",
    "guest-get-osinfo",
    "guest-get-time",
    "guest-get-timezone",
    "guest-get-users",
    "guest-get-vcpus",
    "guest-network-get-interfaces",
)
"""Commands that change nothing, in any version of QEMU's agent that Debian has."""

# The member that tells an element of a list from the others.
NAMES = ("mountpoint", "name", "logical-id", "phys-index", "cpu", "user", "ip-address")


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """The values of all members at any depth, by their paths."""
    if isinstance(value, dict):
        parts = list(value.items())
    elif isinstance(value, list):
        parts = [(name_of(element, at), element) for at, element in enumerate(value)]
    else:
        return {path: value}
    found: dict[str, Any] = {}
    for name, part in parts:
        found.update(flat(part, f"{path}/{str(name).lstrip('/')}"))
    return found or {path: value}


def name_of(element: Any, at: int) -> Any:
    if isinstance(element, dict):
        for name in NAMES:
            if name in element:
                return element[name]
    return at


def in_common_order(theirs: Any, ours: Any) -> bool:
    """Whether elements that two lists have in common are in the same order."""
    names = [
        [name_of(element, at) for at, element in enumerate(reply)]
        for reply in (theirs, ours)
        if isinstance(reply, list)
    ]
    common = [[name for name in each if all(name in other for other in names)] for each in names]
    return all(each == common[0] for each in common)


def is_between(before: Any, value: Any, after: Any) -> bool:
    """Whether a value is the original's before or after it, or, for a number, between them."""
    if type(before) is type(value) is type(after) and isinstance(value, (int, float)):
        # C libraries before glibc 2.41 round the load to hundredths.
        tolerance = 0.01 if isinstance(value, float) else 0
        return bool(min(before, after) - tolerance <= value <= max(before, after) + tolerance)
    return type(value) is type(before) and value in (before, after)


def compare(
    original: AgentSocket,
    agent: AgentSocket,
    command: str,
    listed: Sequence[Difference],
    *,
    all_met: bool = True,
    ordered: bool = True,
) -> None:
    """Assert that our reply equals the original's, except for the listed differences.

    all_met: whether each of them must be there.
    ordered: whether lists must have the original's order.

    A fluctuating value may differ by chance, but not three times in a row.
    """
    for _ in range(2):
        with suppress(AssertionError):
            compare_once(original, agent, command, listed, all_met, ordered)
            return
    compare_once(original, agent, command, listed, all_met, ordered)


def compare_once(
    original: AgentSocket,
    agent: AgentSocket,
    command: str,
    listed: Sequence[Difference],
    all_met: bool,
    ordered: bool,
) -> None:
    replies = [asked.execute(command) for asked in (original, agent, original)]
    assert in_common_order(*replies[:2]) or not ordered, (
        f"not in the original's order: {replies[:2]}"
    )
    before, ours, after = map(flat, replies)
    expected = [each for each in listed if each.command == command]
    met = set()
    for path in sorted(before.keys() | ours.keys()):
        if path in before and path in ours and is_between(before[path], ours[path], after[path]):
            continue
        told = f"{path}: {before.get(path)!r} by the original, {ours.get(path)!r} by ours"
        matching = [each for each in expected if re.fullmatch(each.path, path)]
        assert matching, told
        assert differences.allows(matching[0], ours.get(path)), told
        met.add(matching[0])
    assert met == set(expected) or not all_met
