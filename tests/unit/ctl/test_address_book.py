"""The configuration files of qgactl: names for guests, and who may write them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from qga.ctl import address_book
from qga.ctl.address_book import Book, read_book

GOOD = '[default]\nconnect = "web"\n[guests]\nweb = "unix:/run/web.sock"\ndb = "./db.sock"\n'


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's file; that of the system is beside it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(address_book, "SYSTEM", str(tmp_path / "system.toml"))
    return tmp_path / "qgactl.toml"


def test_names_and_a_default(own: Path) -> None:
    own.write_text(GOOD)
    book = read_book()
    assert book.default == "web"
    assert book.address("web") == "unix:/run/web.sock"
    assert book.address("db") == "unix:./db.sock"
    assert book.address("other") == "other"


def test_no_files(own: Path) -> None:
    assert read_book() == Book("", {})


def test_the_users_file_comes_first(own: Path) -> None:
    own.write_text('[guests]\nweb = "vsock:3:1"\n')
    (own.parent / "system.toml").write_text(GOOD)
    book = read_book()
    assert (book.default, book.address("web"), book.address("db")) == (
        "web",
        "vsock:3:1",
        "unix:./db.sock",
    )


@pytest.mark.parametrize("mode", [0o666, 0o664])
def test_a_file_that_others_may_write_is_refused(own: Path, mode: int) -> None:
    own.write_text(GOOD)
    own.chmod(mode)
    with pytest.raises(ValueError, match=r"qgactl.toml is refused: .* chmod go-w it"):
        read_book()


def test_a_directory_that_others_may_write_is_refused(
    tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    (open_to_all / "qgactl.toml").write_text(GOOD)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(open_to_all))
    with pytest.raises(ValueError, match="is refused"):
        read_book()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 1\n", "unknown table 'x'"),
        ("[defaults]\n", "unknown table 'defaults'; the tables are [default] and [guests]"),
        ("[default]\ntimeout = 'x'\n", "unknown key 'timeout' in [default]; the key is connect"),
        ("[default]\nconnect = 3\n", "[default] connect: use the text of an address"),
        ("[guests]\n'a:b' = 'x'\n", "a name has no colon, slash or equals sign"),
        ("default = 'web'\n", "write [default]"),
        ("[guests\n", "line 1"),
        ("\xff", ""),
    ],
)
def test_a_file_that_is_wrong_is_named(own: Path, text: str, reason: str) -> None:
    own.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=re.escape(str(own)) + ".*" + re.escape(reason)):
        read_book()


def test_a_file_without_end(own: Path) -> None:
    own.write_text("#" * (address_book.LONGEST + 1))
    with pytest.raises(ValueError, match="has more than"):
        read_book()


def test_without_a_reader_of_toml_only_a_file_is_an_error(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tomllib", "tomli"):
        monkeypatch.setitem(sys.modules, name, None)
    assert read_book() == Book("", {})
    own.write_text(GOOD)
    with pytest.raises(ValueError, match="cannot be read without the Python package 'tomli'"):
        read_book()
