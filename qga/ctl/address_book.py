"""The guests that a configuration file names, and words as addresses of agents.

    ~/.config/qgactl.toml, /etc/qgactl.toml

    [default]
    connect = "web"                    # where neither --connect nor QGA_CONNECT is given

    [guests]
    web = "unix:/run/vm/web.sock"      # a name for an address

What the first file leaves out is taken from the second. A file that others may write could send a
password to their guest, so it is refused.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from qga.settings import trust
from qga.wording import suggestion

SYSTEM = "/etc/qgactl.toml"
LONGEST = 1024 * 1024  # bytes of a file

KEYS = {"default": "connect", "guests": "names and addresses"}


class Book(NamedTuple):
    """Addresses by the names that were given to them, and what to use where nothing is named.

    files: where each name is from, by the name; that of the default by "".
    """

    default: str = ""
    guests: Mapping[str, str] = {}
    files: Mapping[str, str] = {}

    def origin(self, word: str) -> str:
        """Which line of which file made an address of a word; "" if none did."""
        file = self.files.get(word)
        return f"'{word}' is {self.guests[word]} in {file}" if file and word else ""

    def address(self, word: str) -> str:
        """The address that a word on the command line stands for."""
        return as_address(self.guests.get(word, word))

    def suggestion(self, word: str, running: Collection[str] = ()) -> str:
        """A question with the names that are similar to a word, without those that are `running`;
        "" if there are none, or if the word is a name.
        """
        names = [] if word in self.guests else [name for name in self.guests if name not in running]
        return suggestion(get_close_matches(word, names))


def as_address(word: str) -> str:
    """A path is a unix socket; everything else is an address already."""
    return f"unix:{word}" if is_path(word) else word


def is_path(word: str) -> bool:
    return "/" in word.partition(":")[0]


def read_book() -> Book:
    """What the configuration files contain. ValueError, which names the file, if one is wrong."""
    default = ""
    guests: dict[str, str] = {}
    origins: dict[str, str] = {}
    for path in files():
        content = read(path)
        named = [*content.guests, *([""] if content.default else [])]
        origins = {**dict.fromkeys(named, path), **origins}
        # The first file wins, key by key.
        default = default or content.default
        guests = {**content.guests, **guests}
    return Book(default, guests, origins)


def files() -> Iterator[str]:
    own = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    yield os.path.join(own, "qgactl.toml")
    yield SYSTEM


def read(path: str) -> Book:
    try:
        # ssh(1) refuses its configuration in the same case.
        real = trust.require(path)
        with open(real, "rb") as file:
            # One byte more shows that there is more.
            text = file.read(LONGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return Book()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except trust.Untrusted as error:
        raise ValueError(f"{path} is refused: {error}") from None
    if len(text) > LONGEST:
        raise ValueError(f"{path} has more than {LONGEST} bytes")
    try:
        return checked(parser(path).loads(text.decode()))
    except ValueError as error:  # of TOML, of UTF-8, or ours
        raise ValueError(f"{path}: {error}") from None
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply") from None


def parser(path: str) -> Any:
    """tomllib, or tomli before Python 3.11; only a host with a file needs it."""
    for name in ("tomllib", "tomli"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            pass
    raise ValueError(f"{path} cannot be read without the Python package 'tomli'")


def checked(content: dict[str, Any]) -> Book:
    """The content as a Book. Raises ValueError for unknown keys and wrong types."""
    for table, entries in content.items():
        if table not in KEYS:
            raise ValueError(f"unknown table '{table}'; the tables are [default] and [guests]")
        if not isinstance(entries, dict):
            raise ValueError(f"'{table}' is not a table; write [{table}]")
        for key, value in entries.items():
            if not isinstance(value, str) or not value:
                raise ValueError(f"[{table}] {key}: use the text of an address")
    default, guests = content.get("default", {}), content.get("guests", {})
    for key in default:
        if key != "connect":
            raise ValueError(f"unknown key '{key}' in [default]; the key is connect")
    for name in guests:
        if not name or set(name) & set(":/="):
            raise ValueError(f"[guests] '{name}': a name has no colon, slash or equals sign")
    return Book(default.get("connect", ""), guests)
