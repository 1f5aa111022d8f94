"""The replies of a hostile guest. To add a scenario, write a function here with `@scenario`.

Most of them change the leaves of the honest reply, so that everything around a wrong value is
valid.
"""

from __future__ import annotations

import base64
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, Union

from tests.hostile.agent import HangUp, Request, Scenario, encode

MB = 1 << 20

Path = tuple[Union[str, int], ...]

# What would change the title of a terminal, clear it, colour it, turn the writing around.
ESCAPES = "\x1b]0;PWNED\x07\x1b[2J\x9b31m\u202e\x08\r\n\x00X"
RAW_ESCAPES = ("\x1b]0;", "\x07", "\x1b[2J", "\x9b", "\u202e", "\x08", "\x00")

SCENARIOS: dict[str, Scenario] = {}
"""All scenarios by name."""

WAITING: set[str] = set()
"""Those that end only when the victim gives up: not even a sync is answered."""


WHATEVER_THE_COMMAND: set[str] = set()
"""Those in which no request gets a valid reply."""

ABOUT_PROGRAMS: set[str] = set()
"""Those that differ from honest replies only in the status and output of programs."""


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


def waiting(function: Scenario) -> Scenario:
    WAITING.add(function.__name__)
    return scenario(function)


def broken(function: Scenario) -> Scenario:
    WHATEVER_THE_COMMAND.add(function.__name__)
    return scenario(function)


def about_programs(function: Scenario) -> Scenario:
    ABOUT_PROGRAMS.add(function.__name__)
    return scenario(function)


def changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """Change every part of `value` that is neither an object nor a list."""
    if isinstance(value, dict):
        return {key: changed(each, change) for key, each in value.items()}
    if isinstance(value, list):
        return [changed(each, change) for each in value]
    return change(value)


def leaves(name: str, change: Callable[[Any], Any]) -> None:
    def reply(request: Request, value: Any) -> Iterator[bytes]:
        yield encode(request, changed(value, change))

    SCENARIOS[name] = reply


def numbers(name: str, number: Any) -> None:
    leaves(name, lambda leaf: number if type(leaf) in (int, float) else leaf)


def strings(name: str, text: str) -> None:
    leaves(name, lambda leaf: text if type(leaf) is str else leaf)


def raw(request: Request, text: bytes) -> bytes:
    """A reply with a value that is given as JSON text."""
    return b'{"return": %s, "id": %d}\n' % (text, request.get("id", 0))


numbers("huge", 2**70)
numbers("wide_integers", 2**64 - 1)
numbers("negative", -1)
numbers("most_negative", -(2**63))
numbers("terabytes", 2**40)
numbers("nan", math.nan)
numbers("infinite", math.inf)
numbers("tiny", 1e-300)
strings("escapes", ESCAPES)
strings("surrogates", "\ud800")
strings("empty", "")
strings("long", "x" * 100_000)
leaves("all_null", lambda leaf: None)
leaves("all_lists", lambda leaf: [])
leaves("all_objects", lambda leaf: {"a": leaf})
leaves("other_types", lambda leaf: 1.5 if isinstance(leaf, str) else str(leaf))
leaves("nested_leaves", lambda leaf: json.loads("[" * 80 + "]" * 80))


@scenario
def honest(request: Request, value: Any) -> Iterator[bytes]:
    yield encode(request, value)


@scenario
def null(request: Request, value: Any) -> Iterator[bytes]:
    yield encode(request, None)


@scenario
def an_object_for_a_list(request: Request, value: Any) -> Iterator[bytes]:
    yield encode(request, {"0": value} if isinstance(value, list) else [value])


@scenario
def too_large_a_float(request: Request, value: Any) -> Iterator[bytes]:
    text = json.dumps(changed(value, lambda leaf: math.inf if type(leaf) is int else leaf))
    yield raw(request, text.replace("Infinity", "1e400").encode())


@scenario
def too_many_digits(request: Request, value: Any) -> Iterator[bytes]:
    text = json.dumps(changed(value, lambda leaf: math.inf if type(leaf) is int else leaf))
    yield raw(request, text.replace("Infinity", "9" * 100_000, 1).encode())


WRONG: tuple[Any, ...] = (
    *(
        2**70,
        2**63 - 1,
        -1,
        0,
        1e300,
        math.nan,
        True,
        None,
        "",
        "\ud800",
        ESCAPES,
        "../..",
        "frozen",
    ),
    *([], [[]], {}, ["text"] * 3),
)


def one_wrong_part(name: str) -> None:
    """Half of the commands have one wrong part in their replies, which differs with `name`.

    Otherwise what is checked first would keep the rest from being looked at.
    """

    def reply(request: Request, value: Any) -> Iterator[bytes]:
        chance = random.Random(f"{name} {request['execute']}")
        if chance.random() < 0.5:
            value = replaced(value, chance.choice(list(parts_of(value))), chance.choice(WRONG))
        yield encode(request, value)

    SCENARIOS[name] = reply


def parts_of(value: Any, where: Path = ()) -> Iterator[Path]:
    """The way to the value, and to all that is in it."""
    yield where
    inside = value.items() if isinstance(value, dict) else ()
    for key, each in enumerate(value) if isinstance(value, list) else inside:
        yield from parts_of(each, (*where, key))


def replaced(value: Any, where: Path, new: Any) -> Any:
    """A copy of the value with another part there."""
    if not where:
        return new
    first, *rest = where
    changed_copy = value.copy()
    changed_copy[first] = replaced(value[first], tuple(rest), new)
    return changed_copy


for number in range(16):
    one_wrong_part(f"one_wrong_part_{number}")


@broken
def a_million_digits(request: Request, value: Any) -> Iterator[bytes]:
    yield raw(request, b"9" * (3 * MB))


@broken
def nested_to_the_bottom(request: Request, value: Any) -> Iterator[bytes]:
    yield raw(request, b"[" * 100_000 + b"]" * 100_000)


@broken
def nested_below_pythons_limit(request: Request, value: Any) -> Iterator[bytes]:
    yield raw(request, b'{"a":' * 900 + b"1" + b"}" * 900)


@scenario
def not_utf8(request: Request, value: Any) -> Iterator[bytes]:
    text = json.dumps(changed(value, lambda leaf: "\xe4" if type(leaf) is str else leaf))
    yield raw(request, b'["\xe4\xc3(\xf0\x80"]' if "\\u00e4" not in text else latin(text))


def latin(text: str) -> bytes:
    return text.replace("\\u00e4", "\xe4").encode("latin-1")


@scenario
def escapes_in_names(request: Request, value: Any) -> Iterator[bytes]:
    yield encode(request, {ESCAPES: ESCAPES, **(value if isinstance(value, dict) else {})})


@broken
def escapes_and_no_json(request: Request, value: Any) -> Iterator[bytes]:
    yield ESCAPES.encode() + b"\n"


def refused(name: str, error: Any) -> None:
    def reply(request: Request, value: Any) -> Iterator[bytes]:
        yield json.dumps({"error": error, "id": request.get("id")}).encode() + b"\n"

    SCENARIOS[name] = reply


refused("errors", {"class": "GenericError", "desc": ESCAPES})
refused("no_such_command", {"class": "CommandNotFound", "desc": ESCAPES})
refused("classes", {"class": ESCAPES, "desc": "x"})
refused("errors_of_wrong_types", {"class": [1], "desc": {"a": [{}]}})
refused("errors_that_are_none", 5)
refused("long_errors", {"class": "GenericError", "desc": "\x1b" * (3 * MB // 6)})


@scenario
def a_list_of_128_mib(request: Request, value: Any) -> Iterator[bytes]:
    yield b'{"id": %d, "return":[' % request.get("id", 0)
    for _ in range(128):
        yield b"{}," * (MB // 3)
    yield b"{}]}\n"


@broken
def a_list_just_below_the_limit(request: Request, value: Any) -> Iterator[bytes]:
    yield raw(request, b"[" + b"{}," * (MB * 4 // 3 - 100) + b"{}]")


@scenario
def many_entries(request: Request, value: Any) -> Iterator[bytes]:
    """All lists with a million empty strings."""
    text = json.dumps(value if isinstance(value, list) else changed_lists(value))
    yield raw(request, text.encode())


def changed_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: changed_lists(each) for key, each in value.items()}
    return [""] * MB if isinstance(value, list) else value


@scenario
def a_wide_and_long_table(request: Request, value: Any) -> Iterator[bytes]:
    if isinstance(value, list):
        first = changed(value, lambda leaf: "w" * 9000 if type(leaf) is str else leaf)
        value = first + value * 1500
    yield encode(request, value)


@waiting
def endless_line(request: Request, value: Any) -> Iterator[bytes]:
    while True:
        yield b"x" * 65536


@waiting
def endless_string(request: Request, value: Any) -> Iterator[bytes]:
    yield b'{"id": %d, "return": {"exited": true, "out-data": "' % request.get("id", 0)
    while True:
        yield b"AAAA" * 16384


@waiting
def endless_replies(request: Request, value: Any) -> Iterator[bytes]:
    while True:
        yield b'{"return": {}}\n' * 4096


@broken
def closed(request: Request, value: Any) -> Iterator[bytes]:
    yield b""
    raise HangUp


@broken
def closed_in_the_middle(request: Request, value: Any) -> Iterator[bytes]:
    yield encode(request, value)[:-5]
    raise HangUp


@broken
def twice(request: Request, value: Any) -> Iterator[bytes]:
    yield encode(request, value) * 2


@broken
def stale_replies_first(request: Request, value: Any) -> Iterator[bytes]:
    """Old replies, as after the guest was reverted to a snapshot."""
    for number in range(3):
        yield encode({"id": number}, ESCAPES)
    yield encode({}, ESCAPES) + encode(request, value)


@waiting
def silent(request: Request, value: Any) -> Iterator[bytes]:
    return iter(())


@waiting
def no_id(request: Request, value: Any) -> Iterator[bytes]:
    yield encode({}, value)


@waiting
def another_id(request: Request, value: Any) -> Iterator[bytes]:
    yield encode({"id": request.get("id", 0) + 1}, value)


@waiting
def late(request: Request, value: Any) -> Iterator[bytes]:
    time.sleep(1)
    yield encode(request, value)


@waiting
def trickle(request: Request, value: Any) -> Iterator[bytes]:
    yield b'{"return": "'
    while True:
        time.sleep(0.01)
        yield b"x"


@about_programs
def never_exits(request: Request, value: Any) -> Iterator[bytes]:
    if isinstance(value, dict) and "exited" in value:
        value = {**value, "exited": False}
    yield encode(request, value)


@about_programs
def promises_bytes(request: Request, value: Any) -> Iterator[bytes]:
    if isinstance(value, dict) and "out-total" in value:
        value = {**value, "out-total": 2**40, "out-data": ""}
    yield encode(request, value)


@about_programs
def a_byte_now_and_then(request: Request, value: Any) -> Iterator[bytes]:
    """Files that never end, or take for ever to write."""
    if request["execute"] in ("guest-file-read", "guest-file-write"):
        time.sleep(0.01)
        value = {"count": 1, "buf-b64": "YQ==", "eof": False}
    yield encode(request, value)


def output(name: str, data: bytes) -> None:
    """The same for every program."""

    def reply(request: Request, value: Any) -> Iterator[bytes]:
        if request["execute"] == "guest-exec-status":
            value = {**value, "out-data": base64.b64encode(data).decode()}
        yield encode(request, value)

    reply.__name__ = name
    about_programs(reply)


output("stat_that_is_none", b"zz xx\n")
output("stat_not_utf8", b"81a4 \xff\n")
output("stat_too_large", b"81a4 %d\n" % 2**70)
output("stat_negative", b"81a4 -5\n")
output("stat_without_end", b"81a4 " + b"9" * 100_000)
output("mode_too_large", b"%x 5\n" % 2**70)
output("a_folder", b"41ed 4096\n")
