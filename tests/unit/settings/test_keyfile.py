"""The key-file format: what it means, and which line a fault is in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qga.settings import keyfile


def values(text: str, group: str = "general") -> dict[str, str]:
    return {key: entry.raw for key, entry in keyfile.parse(text)[group].entries.items()}


def test_a_file_of_every_ordinary_thing() -> None:
    text = "# comment\n\n[general]\n  verbose = true\n\t#indented\npath=a#b ; c\n[other]\nx=1\n"
    groups = keyfile.parse(text)
    assert list(groups) == ["general", "other"]
    assert groups["general"].line == 3
    assert groups["general"].entries == {
        "verbose": keyfile.Entry("true", 4),
        "path": keyfile.Entry("a#b ; c", 6),
    }


def test_nothing_is_a_key_file_without_groups() -> None:
    assert keyfile.parse("") == {}


def test_lines_may_end_as_on_windows() -> None:
    assert values("[general]\r\npath=a\r\nverbose=1\r\n") == {"path": "a", "verbose": "1"}


def test_only_a_line_feed_ends_a_line() -> None:
    assert values("[general]\npath=a\x0b\x0c\x1c\x85\u2028b\n") == {
        "path": "a\x0b\x0c\x1c\x85\u2028b"
    }


def test_white_space_counts_only_behind_the_value() -> None:
    assert values("[general] \npath =  x  \n") == {"path": "x  "}


def test_a_key_may_have_a_locale() -> None:
    keys = ("x[de]", "x[]", "é[sr@latin]", "x[de_DE.UTF-8]", "x y")
    text = "[general]\n" + "".join(f"{key} = 1\n" for key in keys)
    assert values(text) == dict.fromkeys(keys, "1")


def test_a_form_feed_makes_no_line() -> None:
    assert values("[general]\n\f\n \fpath=a\n") == {"path": "a"}


def test_a_group_may_have_any_name_without_control_characters() -> None:
    assert list(keyfile.parse("[a b]\n[é\udcff\u2028]\n")) == ["a b", "é\udcff\u2028"]


def test_quotes_are_part_of_the_value() -> None:
    assert values('[general]\npath="x"\n') == {"path": '"x"'}


def test_the_last_of_two_values_counts_and_knows_the_other() -> None:
    entries = keyfile.parse("[general]\npath=a\npath=b\n")["general"].entries
    assert entries == {"path": keyfile.Entry("b", 3, (("a", 2),))}


def test_a_group_opened_twice_is_one_group() -> None:
    assert values("[general]\npath=a\n[other]\n[general]\nverbose=1\n") == {
        "path": "a",
        "verbose": "1",
    }


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("\nx=1\n", 2, "group header such as"),
        ("[general]\nfoo\n", 2, "'foo' is not a key=value pair"),
        ("[general]\n=a\n", 2, "'=a' is not a key=value pair"),
        (";c\n[general]\n", 1, "group header such as"),
        ("[general]\n;c\n", 2, "';c' is not a key=value pair"),
        ("#\n[general\nverbose=1", 2, "does not end with"),
        ("[general] x\n", 1, "does not end with"),
        ("[]\n", 1, "invalid group name"),
        ("[a[b]\n", 1, "invalid group name 'a[b'"),
        ("[a\x1bb]\n", 1, "invalid group name"),
        ("\ufeff[general]\n", 1, "group header such as"),
        ("[general]\npath=a\0b\n", 2, "NUL"),
        *(
            (f"[general]\n{key}=1\n", 2, f"invalid key name '{key}'")
            for key in ("x]", "x[y", "x[de]z", "x[d e]", "x[d+e]", "x [de]", "x[a][b]", "x]y[de]")
        ),
    ],
)
def test_a_fault_names_its_line(text: str, line: int, why: str) -> None:
    with pytest.raises(keyfile.KeyFileError, match=r".") as caught:
        keyfile.parse(text)
    assert caught.value.line == line
    assert why in str(caught.value)


def test_escapes() -> None:
    assert keyfile.decode(r"a\tb\nc\rd\\e\sf\\n") == "a\tb\nc\rd\\e f\\n"


@pytest.mark.parametrize("raw", [r"a\x", "a\\", r"\,", r"\\\q"])
def test_an_unknown_escape_is_an_error(raw: str) -> None:
    with pytest.raises(ValueError, match="invalid escape"):
        keyfile.decode(raw)


# Any text that a file read with surrogateescape can hold.
TEXTS = st.text().map(lambda text: text.replace("\0", ""))


@given(TEXTS)
def test_every_value_survives_the_file(text: str) -> None:
    assert values(f"[general]\npath={keyfile.encode(text)}\n")["path"] == keyfile.encode(text)
    assert keyfile.decode(keyfile.encode(text)) == text


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        keyfile.parse(text)
    except keyfile.KeyFileError as error:
        assert 1 <= error.line <= text.count("\n") + 1
