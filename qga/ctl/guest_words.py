"""Which word of a command line names the guest.

    first word        qgactl ping web                commands about one guest
    before --         qgactl exec web -- uname -a    commands with a program
    before a colon    qgactl cp web:/etc/hosts .     commands with paths

A guest named in this way overrides QGA_CONNECT. If the first word could also be an argument of the
command, a function of the command decides. `qgactl exec uname -a`, without --, has no guest in it.
"""

from __future__ import annotations

import os
import posixpath
import re
import shlex
import shutil
import stat
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Optional

from qga.client.addresses import FORMS
from qga.client.hosts.discovery import find_guests
from qga.ctl.address_book import Book, is_path

DEFAULT_GUEST = ("", "guest")  # :/etc/hosts and guest:/etc/hosts

# The guest of unix:/run/web.sock:/etc/hosts: // is part of a URI of libvirt.
GUEST_AND_PATH = re.compile(rf"((?:{'|'.join(FORMS)}):.+?):(/(?!/).*)", re.DOTALL)


class WrongWords(Exception):
    """The words are ambiguous or invalid; the message names what to type."""


class Line:
    """A command's name and the words after it.

    at: the indexes of words that are not options, including everything after --.
    dashes: the index of the first --. options: those that are given.
    """

    def __init__(self, command: str, args: Iterable[str], parameters: Iterable[Any]) -> None:
        self.command = command
        self.args = list(args)
        self.at: list[int] = []
        self.dashes: Optional[int] = None
        self.options: set[str] = set()
        known = [each for each in parameters if each.param_type_name == "option"]
        self._known = {name for each in known for name in each.opts}
        self._valued = {name for each in known if not each.is_flag for name in each.opts}
        self._scan()

    def _scan(self) -> None:
        at = 0
        while at < len(self.args):
            arg = self.args[at]
            if arg == "--":
                self.dashes = at
                # Whatever follows -- is a word, even if it looks like an option.
                self.at += range(at + 1, len(self.args))
                return
            if arg.startswith("-") and arg != "-":
                at += self._option_wants_a_value(arg)
            else:
                self.at.append(at)
            at += 1

    def _option_wants_a_value(self, arg: str) -> bool:
        """Note the options in a word; whether the next word is the value of the last one."""
        if arg.startswith("--"):
            name, equals, _ = arg.partition("=")
            self.options.add(name)
            return name in self._valued and not equals
        # -it is two flags, -cweb an option with its value: the first that takes one ends the
        # cluster.
        for at, letter in enumerate(arg[1:], 2):
            self.options.add(f"-{letter}")
            if f"-{letter}" in self._valued:
                return at == len(arg)
        return False

    def has(self, *names: str) -> bool:
        return bool(self.options & set(names))

    def unknown_options(self) -> set[str]:
        return self.options - self._known

    def words(self) -> list[str]:
        return [self.args[at] for at in self.at]

    def before_dashes(self) -> list[int]:
        return self.at if self.dashes is None else [at for at in self.at if at < self.dashes]

    def take(self, at: int) -> str:
        """Remove a word."""
        return self.args.pop(at)


class Surroundings(NamedTuple):
    """What is known besides the words; it is looked up where it matters.

    has_guest: whether one is given by --connect, QGA_CONNECT or the configuration.
    """

    has_guest: Callable[[], bool]
    book: Callable[[], Book]

    def is_guest(self, word: str) -> bool:
        """Whether a word can be nothing but a guest, or is the name of one."""
        scheme, colon, _ = word.partition(":")
        if (colon and scheme in FORMS) or word in self.book().guests:
            return True
        if is_path(word):
            return is_socket(word)
        # This reads /proc, so it comes last, and only for words that are ambiguous.
        return any(guest.is_called(word) for guest in find_guests())


class Found(NamedTuple):
    """The guest that the words name, if any. `doubt`: another reading, with or without a guest."""

    guest: str = ""
    doubt: str = ""


class Place(NamedTuple):
    """Where a command names its guest.

    metavar: how its synopsis shows that. example: what to type after the command's name.
    find: finds the guest, and leaves the line without it.
    """

    metavar: str
    example: str
    find: Callable[[Line, Surroundings], Found]
    help: str = "A guest's name, or an address as of --connect (default: QGA_CONNECT)."


def is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def nothing(_words: list[str], _line: Line, _surroundings: Surroundings) -> bool:
    """Of a command without arguments of its own."""
    return False


NOWHERE = Place("", "", lambda _line, _surroundings: Found())


def first_word(
    example: str = "GUEST", is_own: Callable[[list[str], Line, Surroundings], bool] = nothing
) -> Place:
    """The first word is the guest, unless `is_own` claims all words for the command."""

    def find(line: Line, surroundings: Surroundings) -> Found:
        words = line.words()
        if not words or is_own(words, line, surroundings):
            return Found()
        return Found(line.take(line.at[0]))

    return Place("[GUEST]", example, find)


def before_dashes(
    example: str, lone: Callable[[str, Surroundings], bool], metavar: str = "[GUEST]"
) -> Place:
    """The word before -- is the guest; without -- a word that `lone` takes for one.

    With several words before it, or options that are not ours, -- belongs to the program.
    """

    def find(line: Line, surroundings: Surroundings) -> Found:
        before, command = line.before_dashes(), line.command
        if not before:
            return Found()
        rest = line.args[before[0] :]
        word = rest[0]
        if len(before) == 1 and line.dashes is not None and line.unknown_options():
            wrong = ", ".join(sorted(line.unknown_options()))
            return Found(doubt=f"if {word} is the guest: {command} has no option {wrong}")
        if len(before) > 1 or line.unknown_options():
            return Found(doubt=doubt(command, word, rest[1:])) if rest[1:] else Found()
        if line.dashes is None and not lone(word, surroundings):
            named = f"{quoted(word)} -- PROGRAM" if lone is never else f"-c {quoted(word)}"
            return Found(doubt=f"if {word} is the guest: qgactl {command} {named}")
        # click stops at the first word of a program, so the guest must be gone by then.
        line.take(before[0])
        if line.dashes is None:
            return Found(word)
        other = f"if {word} is the program: qgactl {command} GUEST -- {shlex.join(rest)}"
        return Found(word, other)

    return Place(metavar, example, find)


def doubt(command: str, word: str, rest: list[str]) -> str:
    """The reading of words without -- in which the first is the guest."""
    rest = rest[1:] if rest[0] == "--" else rest
    return f"if {word} is the guest: qgactl {command} {quoted(word)} -- {shlex.join(rest)}"


def quoted(word: str) -> str:
    return shlex.quote(word)


def never(_word: str, _surroundings: Surroundings) -> bool:
    return False


def unless_program_of_guest(word: str, surroundings: Surroundings) -> bool:
    """With a guest given, `shell python3` runs python3; without one it can only be the guest."""
    return not surroundings.has_guest() or surroundings.is_guest(word)


def unless_program_here(word: str, surroundings: Surroundings) -> bool:
    """A program of this host is the program, unless a guest is called so."""
    is_program = shutil.which(word) is not None
    if not surroundings.has_guest():
        return not is_program
    if not surroundings.is_guest(word):
        return False
    if is_program:
        # Either guess could freeze the wrong guest.
        raise WrongWords(
            f"'{word}' is a guest and also a program here: "
            f"qgactl freeze -c {quoted(word)}, or qgactl freeze -- {quoted(word)}"
        )
    return True


def in_paths(example: str, rewrite: Callable[[Line], list[str]]) -> Place:
    """GUEST:PATH; `rewrite` leaves the paths in the line, and returns the guests."""

    def find(line: Line, surroundings: Surroundings) -> Found:
        first, *rest = line.words() or [""]
        is_name = rest and not set(first) & set(":/") and not os.path.lexists(first)
        if is_name and surroundings.is_guest(first):
            raise WrongWords(f"'{first}' is a guest: write {quoted(f'{first}:{rest[0]}')}")
        named = list(dict.fromkeys(filter(None, rewrite(line))))
        if len(named) > 1:
            raise WrongWords(
                f"'{named[0]}' and '{named[1]}' are two guests, and one command works with one; "
                f"write ./ before the name of a file of this host, as in ./{named[1]}:NAME"
            )
        return Found(named[0] if named else "")

    return Place("", example, find)


def split(word: str) -> tuple[str, str] | None:
    """Guest and path of GUEST:PATH; the guest is "" if it is the default, None without a colon."""
    head, colon, path = word.partition(":")
    if not colon or "/" in head:
        return None
    if head in FORMS:
        match = GUEST_AND_PATH.fullmatch(word)
        return (match[1], match[2]) if match else None
    return ("" if head in DEFAULT_GUEST else head), path


def paths_of_cat(line: Line) -> list[str]:
    guests = []
    for at in line.at:
        found = split(line.args[at])
        if found:
            guests.append(found[0])
            line.args[at] = posixpath.join("/", found[1])
    return guests


def paths_of_cp(line: Line) -> list[str]:
    """Leaves :PATH. A source that is a file of this host is one where the destination is there."""
    if not line.at:
        return []
    *sources, last = line.at
    into_guest = split(line.args[last]) is not None
    guests = []
    for at in (*sources, last):
        word = line.args[at]
        found = split(word)
        if not found or (into_guest and at != last and os.path.lexists(word) and not is_ours(word)):
            continue
        guests.append(found[0])
        line.args[at] = f":{found[1]}"
    return guests


def is_ours(word: str) -> bool:
    """Whether a path is marked as one of the default guest."""
    return word.partition(":")[0] in DEFAULT_GUEST
