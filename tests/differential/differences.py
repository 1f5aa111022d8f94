"""Every difference from the original that is meant, and why.

A difference names its cases, and the lines of the original that ours answers otherwise. All of it
is asserted: what is not listed must be the same, and what is listed must still differ in just the
way that is written here.

One difference has no entry, for it is everywhere: the original's order of members is that of a
hash table. Ours puts `return` or `error` first, then `id`, and elsewhere keeps the schema's order
and, in an echoed `id`, the client's. `wire.canonical` forgets the order; `test_whole` checks ours.
"""

from __future__ import annotations

import os
import pwd
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional

from tests.differential import wire


class Difference(NamedTuple):
    """In `cases`, the original's lines that are keys of `lines` are otherwise in ours.

    Where all lines are otherwise, `lines` has ours only, in their order.
    """

    cases: Sequence[str]
    reason: str
    lines: Mapping[bytes, bytes] | Sequence[bytes]


def error(desc: str, name: str = "GenericError") -> bytes:
    """The line of an error reply; `desc` as it is spelled on the wire."""
    return f'{{"error": {{"class": "{name}", "desc": "{desc}"}}}}\n'.encode()


def result(text: str) -> bytes:
    return f'{{"return": {text}}}\n'.encode()


def not_boolean(text: str) -> Mapping[bytes, bytes]:
    return {error("Invalid parameter type for 'capture-output', expected: boolean"): error(text)}


def unknown_pid(pid: str) -> Mapping[bytes, bytes]:
    return {error("Invalid parameter 'pid'"): error(f"PID {pid} does not exist")}


def out_of_range(number: str, reply: str) -> Difference:
    return Difference(
        [f'id: {{"execute":"guest-ping","id":{reply}}}'],
        "A reply that holds `inf` is not JSON: a number too large for a double is refused.",
        [error(f"JSON parse error, number out of range '{number}'")],
    )


def printed(text: str) -> bytes:
    """The final status of a program that printed `text`."""
    data = b64encode(text.encode()).decode()
    return result(
        f'{{"exited": true, "exitcode": 0, "out-data": "{data}", "out-truncated": false}}'
    )


def not_followed(name: str, mode: str, target: str) -> bytes:
    return error(
        f"failed to open file '@scratch/{name}' (mode: '{mode}'): Too many levels of symbolic "
        f"links: it is a symbolic link to '{target}', and writing follows none unless the agent's "
        "configuration has follow-symlinks=true in [files]"
    )


USER = pwd.getpwuid(os.getuid())
STARTED = result('{"pid": "@pid"}')


DIFFERENCES = [
    out_of_range("1e400", "1e400"),
    out_of_range("-1e400", "-1e400"),
    out_of_range("1.8e308", "[1.8e308]"),
    Difference(
        ['envelope: {"foo":2,"bar":1}'],
        "Of several wrong members the first as sent is named, not one by hash order.",
        {
            error("QMP input member 'bar' is unexpected"): error(
                "QMP input member 'foo' is unexpected"
            )
        },
    ),
    Difference(
        ['envelope: {"execute":"nope","arguments":[{}],"b":1}'],
        "A member of the wrong type is named before an unexpected one, whatever the hash order.",
        {
            error("QMP input member 'b' is unexpected"): error(
                "QMP input member 'arguments' must be an object"
            )
        },
    ),
    Difference(
        ['envelope: {"execute":"guest-ping","arguments":{"x":1,"y":1}}'],
        "Of several wrong parameters the first as sent is named, not one by hash order.",
        {error("Parameter 'y' is unexpected"): error("Parameter 'x' is unexpected")},
    ),
    Difference(
        ["guest-get-devices"],
        "Since QEMU 9.1 a command that this system cannot offer does not exist.",
        [error("The command guest-get-devices has not been found", "CommandNotFound")] * 2,
    ),
    *(
        Difference(
            [f'guest-exec-status: "pid":{pid}'],
            "Since QEMU 8.2 an unknown process is named (there as `PID ld`, for want of a `%`).",
            unknown_pid(pid),
        )
        for pid in ("1", "-1", "0", "9223372036854775807")
    ),
    Difference(
        ["exec: true", "exec: captured"],
        "As above, for a process whose final status was fetched.",
        unknown_pid("@pid"),
    ),
    *(
        Difference(
            [f'exec: capture-output "{mode}"'],
            "Since QEMU 8.1 capture-output is a boolean or the name of a mode.",
            [STARTED, result(status)],
        )
        for mode, status in (
            ("none", '{"exited": true, "exitcode": 0}'),
            (
                "stdout",
                '{"exited": true, "exitcode": 0, "out-data": "b3V0Cg==", "out-truncated": false}',
            ),
            (
                "stderr",
                '{"exited": true, "exitcode": 0, "err-data": "ZXJyCg==", "err-truncated": false}',
            ),
            (
                "separated",
                '{"exited": true, "exitcode": 0, "out-data": "b3V0Cg==", "out-truncated": false, '
                '"err-data": "ZXJyCg==", "err-truncated": false}',
            ),
            (
                "merged",
                '{"exited": true, "exitcode": 0, "out-data": "b3V0CmVycgo=", '
                '"out-truncated": false}',
            ),
        )
    ),
    *(
        Difference(
            [f'guest-exec: "path":"/bin/true","capture-output":{wrong}'],
            "Since QEMU 8.1 capture-output is an alternate, and a wrong type is told as for one.",
            not_boolean(
                "Invalid parameter type for 'capture-output', expected: GuestExecCaptureOutput"
            ),
        )
        for wrong in ("1", "null", "[]", "1.5", "{}")
    ),
    Difference(
        ['guest-exec: "path":"/bin/true","capture-output":"nothing"'],
        "Since QEMU 8.1 capture-output may be the name of a mode.",
        not_boolean("Parameter 'capture-output' does not accept value 'nothing'"),
    ),
    Difference(
        ["exec: HOME of a child"],
        "A child knows its user even where the agent's own environment does not.",
        [STARTED, printed(f"{USER.pw_dir} {USER.pw_name} {USER.pw_name}\n")],
    ),
    Difference(
        ["open a new file"],
        "A new file is not writable for everybody.",
        {b"new 0666 new\n": b"new 0644 new\n"},
    ),
    Difference(
        ['guest-file-open: "path":"@scratch/dangling","mode":"w"'],
        "Writing follows no link: who may make one must not choose what the agent writes to.",
        {
            error(
                "failed to open file '@scratch/dangling' (mode: 'w'): No such file or directory"
            ): not_followed("dangling", "w", "nowhere")
        },
    ),
    *(
        Difference(
            [f"open a link in mode {mode}"],
            "As above; follow-symlinks=true in [files] has the original's behaviour.",
            [not_followed("link", mode, "text")],
        )
        for mode in ("w", "r+", "a")
    ),
    Difference(
        ["write to a full disk"],
        "Nothing is buffered: the write that finds the disk full says so, and none is lost later.",
        [
            result('"@handle"'),
            error("failed to write to file: No space left on device"),
            result("{}"),
            result("{}"),
        ],
    ),
    Difference(
        ["close on a full disk"],
        "As above.",
        [
            result('"@handle"'),
            error("failed to write to file: No space left on device"),
            result("{}"),
        ],
    ),
]

BY_CASE = {case: entry for entry in DIFFERENCES for case in entry.cases}


def expected(case: str, original: Sequence[bytes]) -> list[bytes]:
    """What ours has to answer where the original answered `original`."""
    entry = BY_CASE.get(case)
    if entry is None:
        return list(original)
    if not isinstance(entry.lines, Mapping):
        return list(entry.lines)
    missing = [line for line in entry.lines if line not in original]
    assert not missing, f"the original no longer answers {missing} in {case!r}: {original}"
    return [entry.lines.get(line, line) for line in original]


def first_difference(ours: Sequence[bytes], wanted: Sequence[bytes]) -> Optional[str]:
    """What is wrong with ours, but for the order of members; None when nothing is."""
    for number, (is_, should) in enumerate(zip(ours, wanted), 1):
        if is_ != should and wire.canonical(is_) != wire.canonical(should):
            return f"line {number} is\n  {shortened(is_)}\nand should be\n  {shortened(should)}"
    if len(ours) != len(wanted):
        return f"{len(ours)} lines, not {len(wanted)}:\n  {shortened(b''.join(ours))}"
    return None


def shortened(line: bytes) -> str:
    text = repr(line)
    return text if len(text) < 2000 else f"{text[:900]} … {len(text)} … {text[-900:]}"


ONE_OF_SEVERAL = re.compile(
    rb"Parameter '.*' is unexpected"
    rb"|QMP input member '.*' (?:is unexpected|must be (?:a string|an object))"
)


def same_but_for_choice(ours: bytes, original: bytes) -> bool:
    """Whether two lines say the same, if not of the same one of several wrong members."""
    return without_choice(ours) == without_choice(original)


def without_choice(line: bytes) -> bytes:
    return wire.canonical(ONE_OF_SEVERAL.sub(b"@", line))
