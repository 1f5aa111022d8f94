"""Which word of a command line names the guest.

    first word        qgactl ping web                commands about one guest
    before --         qgactl exec web -- uname -a    commands with a program: always, if -- is there
    before a colon    qgactl cp web:/etc/hosts .     commands with paths

A guest named in this way overrides QGA_CONNECT. If the first word could also be an argument of the
command, a function of the command decides. `qgactl exec uname -a`, without --, has no guest in it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, NamedTuple, Optional

from qga.client.addresses import FORMS
from qga.client.hosts.discovery import find_guests
from qga.ctl.address_book import Book, is_path
from qga.wording import suggestion

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
        self.options: dict[str, None] = {}  # in their order
        known = [each for each in parameters if each.param_type_name == "option"]
        self.known = {name for each in known for name in each.opts}
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
            self.options[name] = None
            return name in self._valued and not equals
        # -it is two flags, -cweb an option with its value: the first that takes one ends the
        # cluster.
        for at, letter in enumerate(arg[1:], 2):
            self.options[f"-{letter}"] = None
            if f"-{letter}" in self._valued:
                return at == len(arg)
        return False

    def has(self, *names: str) -> bool:
        return any(name in self.options for name in names)

    def unknown_options(self) -> list[str]:
        return [name for name in self.options if name not in self.known]

    def words(self) -> list[str]:
        return [self.args[at] for at in self.at]

    def before_dashes(self) -> list[int]:
        return self.at if self.dashes is None else [at for at in self.at if at < self.dashes]

    def take(self, at: int) -> str:
        """Remove a word."""
        return self.args.pop(at)


class Surroundings(NamedTuple):
    """What is known besides the words; looked up only when needed.

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
    """The guest that the words name, if any.

    doubt: how else the words could be understood. others: further guests.
    """

    guest: str = ""
    doubt: str = ""
    others: tuple[str, ...] = ()


class GuestPath(NamedTuple):
    """A path in a guest; "" is the default guest, and None if there was no colon."""

    guest: str | None
    path: str


class Place(NamedTuple):
    """Where a command names its guest.

    metavar: how its synopsis shows that. example: what to type after the command's name.
    find: finds the guest, and leaves the line without it.
    """

    metavar: str
    example: str
    find: Callable[[Line, Surroundings], Found]
    help: str = "A guest's name, or an address as for --connect (default: QGA_CONNECT)."


def no_such_option(name: str, known: Iterable[str], otherwise: str = "") -> str:
    similar = get_close_matches(name, list(known), 2)
    return f"no such option: {name}" + (f"; {suggestion(similar)}" if similar else otherwise)


def not_empty(guest: str) -> str:
    """The name of a guest as it was typed, which is empty if a variable of a script is not set."""
    if not guest:
        raise WrongWords("the name of the guest is empty")
    return guest


def is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def nothing(_words: list[str], _line: Line, _surroundings: Surroundings) -> bool:
    """For a command without arguments of its own."""
    return False


NOWHERE = Place("", "", lambda _line, _surroundings: Found())


def first_word(
    example: str = "GUEST", is_own: Callable[[list[str], Line, Surroundings], bool] = nothing
) -> Place:
    """The first word is the guest, unless `is_own` claims all words for the command."""

    def find(line: Line, surroundings: Surroundings) -> Found:
        words = line.words()
        if not words or (not_empty(words[0]) and is_own(words, line, surroundings)):
            return Found()
        return Found(line.take(line.at[0]))

    return Place("[GUEST]", example, find)


def before_dashes(
    example: str,
    lone: Callable[[str, Surroundings], bool],
    metavar: str = "[GUEST]",
    several: bool = False,
) -> Place:
    """The word before -- is the guest; without -- a word that `lone` takes for one.

    several: all words before -- are guests.
    """

    def find(line: Line, surroundings: Surroundings) -> Found:
        words = [line.args[at] for at in line.before_dashes()]
        if words:
            not_empty(words[0])
        if line.dashes is not None:
            return guest_before_dashes(line, words, several)
        if not words:
            return Found()
        word, rest = words[0], line.args[line.at[0] + 1 :]
        if rest and (len(words) > 1 or line.unknown_options()):
            return Found(doubt=doubt(line.command, word, rest))
        if not lone(word, surroundings):
            named = f"{quoted(word)} -- PROGRAM" if lone is never else f"-c {quoted(word)}"
            return Found(doubt=f"if {word} is the guest: qgactl {line.command} {named}")
        return Found(line.take(line.at[0]))

    return Place(metavar, example, find)


def guest_before_dashes(line: Line, words: list[str], several: bool) -> Found:
    """The guests of a line with --, which has `words` before it: one, unless `several` may be."""
    program = line.args[line.dashes + 1 :] if line.dashes is not None else []
    if not words:
        word, *rest = program or [""]
        return Found(doubt=doubt(line.command, word, rest) if rest else "")
    rest = line.args[line.at[0] :]
    other = f"if {words[0]} is the program: qgactl {line.command} GUEST -- {shlex.join(rest)}"
    for name in line.unknown_options():
        raise WrongWords(no_such_option(name, line.known, f"; {other}"))
    if len(words) > 1 and not several:
        some = "two words" if len(words) == 2 else "several words"
        raise WrongWords(
            f"{some} before --: '{words[0]}' and '{words[1]}'; only the guest goes there; {other}"
        )
    # click stops at the first word of a program, so the guests must be gone by then.
    for at in reversed(line.before_dashes()):
        not_empty(line.take(at))
    return Found(words[0], other, tuple(words[1:]))


def doubt(command: str, word: str, rest: list[str]) -> str:
    """The reading of words in which the first is the guest, and the rest a program."""
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


def in_paths(example: str, rewrite: Callable[[Line], list[GuestPath]], empty: str) -> Place:
    """GUEST:PATH; `rewrite` leaves the paths in the line, and returns what is in a guest.

    empty: what to suggest where a path is empty.
    """

    def find(line: Line, surroundings: Surroundings) -> Found:
        words = line.words()
        for word in words:
            refuse_path_of_socket(word)
        refuse_guest_without_path(words, surroundings)
        found = rewrite(line)
        named = list(dict.fromkeys(each.guest for each in found if each.guest))
        if len(named) > 1:
            raise WrongWords(
                f"'{named[0]}' and '{named[1]}' are two guests, and one command works with one; "
                f"write ./ before the name of a file of this host, as in ./{named[1]}:NAME"
            )
        for each in found:
            require_absolute(each, empty)
        return Found(named[0] if named else "")

    return Place("", example, find)


def refuse_path_of_socket(word: str) -> None:
    """./web.sock:/etc/hosts could also be a file of this host, or a path in the default guest."""
    head, colon, path = word.partition(":")
    if colon and "/" in head and is_socket(head) and not os.path.lexists(word):
        raise WrongWords(f"'{head}' is a socket: write {quoted(f'unix:{head}:{path}')}")


def refuse_guest_without_path(words: list[str], surroundings: Surroundings) -> None:
    """`cat web /etc/hosts` and `cp motd web`, where a file of this host could be meant as well."""
    # After web:/a, the word web is a new file of this host.
    are_here = not any(split(word) for word in words)
    for at in {0, len(words) - 1 if are_here else 0} if words else ():
        word = words[at]
        is_name = word and not set(word) & set(":/") and not os.path.lexists(word)
        if is_name and surroundings.is_guest(word):
            is_first = at == 0 and len(words) > 1 and ":" not in words[1]
            example = quoted(f"{word}:{words[1]}") if is_first else f"{quoted(word)}:PATH"
            raise WrongWords(f"'{word}' is a guest: write {example}")


def require_absolute(place: GuestPath, empty: str) -> None:
    """Refuse relative paths: scp resolves them in the home directory, but an agent has none."""
    before = "" if place.guest is None else f"{place.guest}:"
    if not place.path.startswith("/"):
        example = quoted(f"{before}/{place.path or empty}")
        raise WrongWords(
            f"'{before}{place.path}' has no absolute path; type one, such as {example}"
        )


def split(word: str) -> GuestPath | None:
    """Guest and path of GUEST:PATH; the guest is "" if it is the default, None without a colon."""
    head, colon, path = word.partition(":")
    if not colon or "/" in head:
        return None
    if head in FORMS:
        match = GUEST_AND_PATH.fullmatch(word)
        return GuestPath(match[1], match[2]) if match else None
    return GuestPath("" if head in DEFAULT_GUEST else head, path)


def paths_of_cat(line: Line) -> list[GuestPath]:
    """Leaves PATH."""
    found = []
    for at in line.at:
        place = split(line.args[at]) or GuestPath(None, line.args[at])
        found.append(place)
        line.args[at] = place.path
    return found


def paths_of_cp(line: Line) -> list[GuestPath]:
    """Leaves :PATH. A source that is a file of this host is one where the destination is there."""
    if not line.at:
        return []
    *sources, last = line.at
    into_guest = split(line.args[last]) is not None
    found = []
    for at in (*sources, last):
        word = line.args[at]
        place = split(word)
        if not place or (into_guest and at != last and os.path.lexists(word) and not is_ours(word)):
            continue
        found.append(place)
        line.args[at] = f":{place.path}"
    return found


def is_ours(word: str) -> bool:
    """Whether a path is marked as one of the default guest."""
    return word.partition(":")[0] in DEFAULT_GUEST
