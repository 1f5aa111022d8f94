"""Which lines of the original's ours answers otherwise, and on what record.

`tests/differences.py` has the records. Here are the cases of each, with the lines. All of it is
asserted: what is not listed must be the same, and what is listed must still differ in just the way
that is written here.

Two records have no entry. `member-order` is everywhere: `wire.canonical` forgets the order, and
`test_whole` checks ours. `parse-errors` is of every case with a parse error: `same_until_fault`.
"""

from __future__ import annotations

import os
import pwd
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional

from tests.differences import BY_NAME
from tests.differential import wire


class Difference(NamedTuple):
    """In `cases`, the original's lines that are keys of `lines` are otherwise in ours.

    record: the name in `tests/differences.py`, which says of which releases this is.
    lines: ours only, in their order, where all lines are otherwise.
    """

    record: str
    cases: Sequence[str]
    lines: Mapping[bytes, bytes] | Sequence[bytes]

    def is_of(self, version: str) -> bool:
        """Whether the original of this version, such as 7.2, differs so."""
        return any(release.startswith(version) for release in BY_NAME[self.record].releases)


def error(desc: str, name: str = "GenericError") -> bytes:
    """The line of an error reply; `desc` as it is spelled on the wire."""
    return f'{{"error": {{"class": "{name}", "desc": "{desc}"}}}}\n'.encode()


def result(text: str) -> bytes:
    return f'{{"return": {text}}}\n'.encode()


def not_boolean(text: str) -> Mapping[bytes, bytes]:
    return {error("Invalid parameter type for 'capture-output', expected: boolean"): error(text)}


def unknown_pid(cases: Sequence[str], pid: str) -> list[Difference]:
    ours = error(f"PID {pid} does not exist")
    return [
        Difference("unknown-pid", cases, {error("Invalid parameter 'pid'"): ours}),
        Difference("unknown-pid-number", cases, {error("PID ld does not exist"): ours}),
    ]


def out_of_range(number: str, reply: str, column: int) -> Difference:
    return Difference(
        "number-out-of-range",
        [f'id: {{"execute":"guest-ping","id":{reply}}}'],
        [error(f"1:{column}: JSON parse error, number out of range '{number}'")],
    )


def cannot_start(path: str, reason: str, spelled: str = "") -> Difference:
    text = f"Failed to execute child process \\u201C{path}\\u201D ({reason})"
    return Difference(
        "exec-start-error",
        [f"guest-exec: {spelled or chr(34) + 'path' + chr(34) + ':' + chr(34) + path + chr(34)}"],
        {error(f"Guest agent command failed, error was '{text}'"): error(text)},
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
        f"links: symbolic link to '{target}'; writing does not follow links unless [files] "
        "follow-symlinks=true is set in the agent's configuration"
    )


ODD_VARIABLES = "A=1\nA=2\nD=a=b\n"
USER = pwd.getpwuid(os.getuid())
STARTED = result('{"pid": "@pid"}')


NOT_FOUND = "No such file or directory"
NO_ACCESS = "Permission denied"

DIFFERENCES = [
    out_of_range("1e400", "1e400", 30),
    out_of_range("-1e400", "-1e400", 30),
    out_of_range("1.8e308", "[1.8e308]", 31),
    Difference(
        "first-wrong-member",
        ['envelope: {"foo":2,"bar":1}'],
        {
            error("QMP input member 'bar' is unexpected"): error(
                "QMP input member 'foo' is unexpected"
            )
        },
    ),
    Difference(
        "first-wrong-member",
        ['envelope: {"execute":"guest-ping","arguments":{"x":1,"y":1}}'],
        {error("Parameter 'y' is unexpected"): error("Parameter 'x' is unexpected")},
    ),
    Difference(
        "wrong-type-first",
        ['envelope: {"execute":"nope","arguments":[{}],"b":1}'],
        {
            error("QMP input member 'b' is unexpected"): error(
                "QMP input member 'arguments' must be an object"
            )
        },
    ),
    Difference(
        "unsupported-commands",
        ["guest-get-devices"],
        [error("The command guest-get-devices has not been found", "CommandNotFound")] * 2,
    ),
    *(
        difference
        for pid in ("1", "-1", "0", "9223372036854775807")
        for difference in unknown_pid([f'guest-exec-status: "pid":{pid}'], pid)
    ),
    *unknown_pid(["exec: true", "exec: captured"], "@pid"),
    cannot_start("", NOT_FOUND),
    cannot_start("/nonexistent", NOT_FOUND),
    cannot_start("nonexistent-command", NOT_FOUND),
    cannot_start("@scratch/text", NO_ACCESS),
    cannot_start("@scratch", NO_ACCESS),
    cannot_start("@scratch/text/x", "Not a directory"),
    cannot_start(r"/non\u0000existent", NOT_FOUND),
    cannot_start(r"/\u00E9\"\n", NOT_FOUND, r'"path":"/\u00e9\"\n"'),
    cannot_start("true", NOT_FOUND, '"path":"true","env":["PATH=/nonexistent"]'),
    *(
        Difference("capture-modes", [f'exec: capture-output "{mode}"'], [STARTED, result(status)])
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
            "capture-modes",
            [f'guest-exec: "path":"/bin/true","capture-output":{wrong}'],
            not_boolean(
                "Invalid parameter type for 'capture-output', expected: GuestExecCaptureOutput"
            ),
        )
        for wrong in ("1", "null", "[]", "1.5", "{}")
    ),
    Difference(
        "capture-modes",
        ['guest-exec: "path":"/bin/true","capture-output":"nothing"'],
        not_boolean("Parameter 'capture-output' does not accept value 'nothing'"),
    ),
    Difference(
        "home-of-a-child",
        ["exec: HOME of a child"],
        [STARTED, printed(f"{USER.pw_dir} {USER.pw_name} {USER.pw_name}\n")],
    ),
    Difference("environment-entries", ["exec: odd environment"], [STARTED, printed(ODD_VARIABLES)]),
    Difference(
        "seek-of-devices",
        ["seek in a device"],
        [result('"@handle"'), result('{"position": 0, "eof": false}'), result("{}")],
    ),
    Difference(
        "fifo-both-ways",
        ["write to a fifo that was read"],
        {error("failed to seek file: Illegal seek"): result('{"count": 1, "eof": false}')},
    ),
    Difference("mode-of-a-new-file", ["open a new file"], {b"new 0666 new\n": b"new 0644 new\n"}),
    Difference(
        "no-links-for-writing",
        ['guest-file-open: "path":"@scratch/dangling","mode":"w"'],
        {
            error(
                "failed to open file '@scratch/dangling' (mode: 'w'): No such file or directory"
            ): not_followed("dangling", "w", "nowhere")
        },
    ),
    *(
        Difference(
            "no-links-for-writing",
            [f"open a link in mode {mode}"],
            [not_followed("link", mode, "text")],
        )
        for mode in ("w", "r+", "a")
    ),
    Difference(
        "write-is-not-buffered",
        ["write to a full disk"],
        [
            result('"@handle"'),
            error("failed to write to file: No space left on device"),
            result("{}"),
            result("{}"),
        ],
    ),
    Difference(
        "write-is-not-buffered",
        ["close on a full disk"],
        [
            result('"@handle"'),
            error("failed to write to file: No space left on device"),
            result("{}"),
        ],
    ),
]


def of_case(case: str, version: str) -> Optional[Difference]:
    """How ours differs in a case from the original of this version."""
    for each in DIFFERENCES:
        if case in each.cases and each.is_of(version):
            return each
    return None


def expected(case: str, version: str, original: Sequence[bytes]) -> list[bytes]:
    """What ours has to answer where the original answered `original`."""
    entry = of_case(case, version)
    if entry is None:
        return list(original)
    if not isinstance(entry.lines, Mapping):
        return list(entry.lines)
    missing = [line for line in entry.lines if line not in original]
    assert not missing, f"the original no longer answers {missing} in {case!r}: {original}"
    return [entry.lines.get(line, line) for line in original]


FAULT = re.compile(rb'{"error": {"class": "GenericError", "desc": "(?:(\d+:\d+): )?JSON (.*)"}}\n')
WORDS_OF_7_2 = {
    b"parse error, key is not a string in object",
    b"parse error, missing : in object pair",
    b"parse error, expected separator in dict",
    b"parse error, expected separator in list",
}


def has_fault(lines: Sequence[bytes]) -> bool:
    return any(map(FAULT.fullmatch, lines))


def first_fault(lines: Sequence[bytes]) -> Optional[int]:
    return next((number for number, line in enumerate(lines) if FAULT.fullmatch(line)), None)


def same_until_fault(ours: Sequence[bytes], original: Sequence[bytes]) -> Optional[str]:
    """What is wrong with ours beside the original before QEMU 11.1; None when nothing is.

    From the first fault on only the later original tells what is right. The earlier one does not
    report a fault of a value that is not complete.
    """
    first = first_fault(ours)
    if first is None or first_fault(original) not in (None, first):
        return f"not the same line is a fault: {shortened(b''.join(ours))}"
    if found := first_difference(ours[:first], original[:first]):
        return found
    for line in ours:
        match = FAULT.fullmatch(line)
        if match and (match[1] is None) == match[2].startswith(b"parse error"):
            return f"a parse error has a position, and nothing else: {line!r}"
        if match and match[2] in WORDS_OF_7_2:
            return f"the words of 7.2: {line!r}"
    return None


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


START_ERROR = re.compile(rb"Guest agent command failed, error was '(Failed to execute .*\))'")


def reworded(line: bytes) -> bytes:
    """A line of 7.2 in later words, whatever the program: the record `exec-start-error`."""
    return START_ERROR.sub(rb"\1", line)


ONE_OF_SEVERAL = re.compile(
    rb"Parameter '.*' is unexpected"
    rb"|QMP input member '.*' (?:is unexpected|must be (?:a string|an object))"
)


def same_but_for_choice(ours: bytes, original: bytes) -> bool:
    """Whether two lines say the same, if not of the same one of several wrong members."""
    return without_choice(ours) == without_choice(original)


def without_choice(line: bytes) -> bytes:
    return wire.canonical(ONE_OF_SEVERAL.sub(b"@", line))


def without_choices(lines: Sequence[bytes]) -> list[bytes]:
    return [ONE_OF_SEVERAL.sub(b"@", line) for line in lines]
