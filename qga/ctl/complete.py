"""Dynamic completions for TAB: names of guests, and paths in a guest.

    qgactl --complete guests PREFIX       web, db, unix:, …
    qgactl --complete paths GUEST:PREFIX  web:/etc/hosts, web:/etc/ssh/, …

The shells' completion scripts call it; it prints one word per line. It imports neither typer nor
rich, takes two seconds at most, and prints nothing after an error. Guests may be hostile: names
with characters that do not print are left out, and the scripts quote the rest.
"""

from __future__ import annotations

import os
import posixpath
import signal
import sys
from collections.abc import Iterable, Iterator

from qga.client.addresses import FORMS
from qga.client.agent import GuestAgent
from qga.client.hosts.discovery import find_guests
from qga.ctl.address_book import read_book
from qga.ctl.guest_words import split

SECONDS = 2.0
MOST, LONGEST = 1000, 255  # words, and characters of a name (NAME_MAX)

# Prints entries of the directory $1 that begin with $2; directories get a slash.
LIST = """
cd -- "$1" || exit
for each in "$2"*; do
    [ -d "$each" ] && each=$each/
    [ -e "$each" ] && printf '%s\\n' "$each"
done
"""


def main() -> None:
    """Print the words for this process's arguments."""
    # A message would appear in the middle of the line that the user is editing.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    # The shell waits for us, and connecting to a guest has no time limit.
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        kind, prefix = sys.argv[2:4]
        found = paths(prefix) if kind == "paths" else guests(prefix)
        words = "".join(f"{word}\n" for word in fit_to_show(found))
        sys.stdout.write(words)
        sys.stdout.flush()
    finally:
        # Not sys.exit, which waits for the threads of a transport.
        os._exit(0)


def guests(prefix: str) -> Iterator[str]:
    """Names of guests, and the schemes of addresses."""
    names = [*read_book().guests, *(guest.name for guest in find_guests())]
    for name in [*dict.fromkeys(names), *(f"{scheme}:" for scheme in FORMS)]:
        if name.startswith(prefix):
            yield name


def paths(word: str) -> Iterator[str]:
    """Paths in the guest; for a word without a colon, names of guests followed by a colon."""
    found = split(word)
    if found is None:
        yield from (name if name.endswith(":") else f"{name}:" for name in guests(word))
        return
    guest, path = found
    directory, start = posixpath.split(path)
    before = word[: len(word) - len(start)]
    book = read_book()
    address = book.address(guest or os.environ.get("QGA_CONNECT") or book.default)
    with GuestAgent(address, SECONDS, max_reply=1024 * 1024) as agent:
        # Every agent has guest-exec; if it is disabled, nothing is completed.
        script = ["/bin/sh", "-c", LIST, "sh", posixpath.join("/", directory), start]
        listed = agent.exec_wait(agent.exec_start(script), SECONDS).stdout
    for line in listed.decode(errors="replace").splitlines():
        if line.startswith(start) and line not in ("./", "../"):
            yield before + line


def fit_to_show(words: Iterable[str]) -> Iterator[str]:
    for count, word in enumerate(words):
        if count >= MOST:
            return
        # U+FFFD stands for bytes that are not UTF-8, with which no path can be asked for.
        is_text = word.isprintable() and "\ufffd" not in word
        if is_text and len(word.rpartition("/")[2]) <= LONGEST:
            yield word
