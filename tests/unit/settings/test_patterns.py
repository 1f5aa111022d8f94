"""What the patterns of rules match, and which of them are refused."""

from __future__ import annotations

import os
import re
import string
import subprocess
from runpy import run_path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qga.settings import patterns
from qga.settings.patterns import (
    LONGEST_ARGUMENT,
    LONGEST_NAME,
    compile_name,
    compile_path,
    compile_program,
    split_rules,
)
from qga.settings.trust import LONGEST_PATH


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/etc/hosts", "/etc/hosts", True),
        ("/etc/hosts", "/etc/hosts.bak", False),
        ("/etc/hosts", "/x/etc/hosts", False),
        ("/etc/hosts", "/etc/hosts\n", False),
        ("/etc/*.conf", "/etc/resolv.conf", True),
        ("/etc/*.conf", "/etc/.conf", True),
        ("/etc/*.conf", "/etc/a/b.conf", False),
        ("/etc/*", "/etc/", True),
        ("/etc/**", "/etc/a/b.conf", True),
        ("/etc/**/b", "/etc/a/c/b", True),
        ("/etc/**/b", "/etc/b", False),
        ("/var/log/", "/var/log/a/b", True),
        ("/var/log/", "/var/log", False),
        ("/var/log/", "/var/logs/a", False),
        ("/", "/anything/at all", True),
        ("/a/?", "/a/b", True),
        ("/a/?", "/a//", False),
        ("/a?b", "/a/b", False),
        ("/a[/]b", "/a/b", False),
        ("/a[!x]b", "/a/b", False),
        ("/a[!x]b", "/ayb", True),
        ("/a[!x]b", "/axb", False),
        ("/a[0-9]", "/a5", True),
        ("/a[]]", "/a]", True),
        ("/a[", "/a[", True),
        ("/a[+--]", "/a,", True),
        ("/a[+--]", "/a.", False),
        ("/a[--0]", "/a.", True),
        ("/a[!--0]", "/a.", False),
        ("/a[b-d-f]", "/a-", True),
        ("/a[b-d-f]", "/ae", False),
        ("/a[b-]", "/a-", True),
        ("/a[b\\-d]", "/ac", True),
        ("/a[b\\-d]", "/ab", True),
        ("/a[\n-\r]", "/a\v", True),
        ("/a[!!b]", "/a!", False),
        ("/a[!!b]", "/ac", True),
        ("/a['\"]b", "/a'b", True),
        ("/a[!'\"]b", "/acb", True),
        ("/a[!'\"]b", "/a'b", False),
        ("/a[^b]", "/ac", False),
        ("/a[^b]", "/a^", True),
        ("/a.b", "/axb", False),
        ("/a(b|c)", "/ab", False),
        ('/it\'s "so"', '/it\'s "so"', True),
        ("/a\nb*", "/a\nbc\nd", True),
    ],
)
def test_paths(pattern: str, path: str, matches: bool) -> None:
    assert bool(compile_path(pattern).fullmatch(path)) == matches


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("etc/hosts", "is not an absolute path"),
        ("*/hosts", "is not an absolute path"),
        ("/etc/../hosts", "cannot match"),
        ("/etc//hosts", "cannot match"),
        ("/etc/./hosts", "cannot match"),
        ("/etc/..", "cannot match"),
        ("//", "cannot match"),
        ("/[z-a]", "is not a valid pattern"),
    ],
)
def test_invalid_patterns_of_paths(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        compile_path(pattern)


@pytest.mark.parametrize(
    ("rule", "argv", "allowed"),
    [
        ("/bin/df", ["/bin/df"], True),
        ("/bin/df", ["/bin/df", "-h", "/"], True),
        ("/bin/df", ["/bin/dfx"], False),
        ('/bin/df ""', ["/bin/df"], True),
        ("/bin/df ''", ["/bin/df", ""], False),
        ('/bin/df ""', ["/bin/df", "-h"], False),
        ("/bin/df -h", ["/bin/df", "-h"], True),
        ("/bin/df -h", ["/bin/df"], False),
        ("/bin/df -h", ["/bin/df", "-h", "/"], False),
        ("/bin/df -h ...", ["/bin/df", "-h", "/", "x"], True),
        ("/bin/df -h ...", ["/bin/df", "-h"], True),
        ("/bin/df -h ...", ["/bin/df", "-x"], False),
        ("/bin/df ...", ["/bin/df"], True),
        ("/bin/cat /var/log/*", ["/bin/cat", "/var/log/../../etc/shadow"], True),
        ("/bin/echo '*'", ["/bin/echo", "*"], True),
        ("/bin/echo '*'", ["/bin/echo", "x"], False),
        ("/bin/echo 'a b'*", ["/bin/echo", "a bc"], True),
        ("/bin/echo a b", ["/bin/echo", "a b"], False),
        ("/bin/find . -exec x ';'", ["/bin/find", ".", "-exec", "x", ";"], True),
        ('/bin/echo "" x', ["/bin/echo", "", "x"], True),
        ("'/opt/my tool' *", ["/opt/my tool", "anything"], True),
        ("/usr/bin/*", ["/usr/bin/x/y"], False),
    ],
)
def test_programs(rule: str, argv: list[str], allowed: bool) -> None:
    assert compile_program(rule).allows(argv[0], argv[1:]) == allowed


@pytest.mark.parametrize("rule", ["df -h", "/bin/df 'x", '/bin/df "', "", "''"])
def test_invalid_rules_of_programs(rule: str) -> None:
    with pytest.raises(ValueError, match=r"absolute path|unclosed quote"):
        compile_program(rule)


def test_a_quoted_semicolon_does_not_separate_rules() -> None:
    assert split_rules("/a ';' x; /b \";\"") == ["/a ';' x", ' /b ";"']
    with pytest.raises(ValueError, match="unclosed quote"):
        split_rules("/a ';")


def test_names() -> None:
    assert compile_name("web-*").fullmatch("web-1")
    assert not compile_name("web-*").fullmatch("root")
    assert not compile_name("root").fullmatch("root2")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("first", string.punctuation.replace("/", ""))
def test_no_member_is_taken_for_an_operation_on_sets(first: str) -> None:
    for second in set(string.punctuation) - {"]", "/"}:
        members = f"!x{first}{second}" if first == "]" else f"{first}{second}"
        negated = members[0] == "!"
        try:
            pattern = compile_path(f"/[{members}y]")
        except ValueError:  # such as [.-+]
            assert "-" in members
            continue
        assert bool(pattern.fullmatch(f"/{second}")) != negated or "-" in members


def plain(pattern: str, any_character: str) -> re.Pattern[str]:
    """What a pattern means, as an expression that may take a time without a limit."""
    meaning = {"**": ".*", "*": f"{any_character}*", "?": any_character}
    pieces = re.findall(r"\*\*|.", pattern)
    return re.compile("".join(meaning.get(piece, piece) for piece in pieces), re.DOTALL)


WORDS = st.text("ab/", max_size=12)
GLOBS = st.lists(st.sampled_from(["a", "b", "/", "?", "*", "*", "**"]), max_size=9).map("".join)


@settings(max_examples=500)
@given(GLOBS, WORDS)
def test_wildcards_match_whatever_can_be_in_their_place(pattern: str, text: str) -> None:
    try:
        path = compile_path(f"/x{pattern}x")
    except ValueError:  # such as /x//x
        return
    assert bool(path.fullmatch(f"/x{text}x")) == bool(
        plain(f"/x{pattern}x", "[^/]").fullmatch(f"/x{text}x")
    )
    program = compile_program(f"/x y{pattern}")
    assert program.allows("/x", [f"y{text}"]) == bool(
        plain(f"y{pattern}", ".").fullmatch(f"y{text}")
    )


@pytest.mark.parametrize("wildcard", ["*a", "**a", "*a**b*", "**a*b", "**?*"])
def test_no_text_is_compared_without_end(wildcard: str) -> None:
    """Each further wildcard would take thousands of times as long."""
    path, name, program = (
        compile_path(f"/{wildcard * 12}c"),
        compile_name(f"{wildcard * 12}c"),
        compile_program(f"/x {wildcard * 12}c"),
    )
    for piece in ("a", "ab", "a/b", "/a"):
        assert not path.fullmatch(("/" + piece * LONGEST_PATH)[:LONGEST_PATH])
        assert not name.fullmatch((piece * LONGEST_NAME)[:LONGEST_NAME])
        assert not program.allows("/x", [(piece * LONGEST_ARGUMENT)[:LONGEST_ARGUMENT]])


def test_the_longest_argument_is_the_longest_that_the_kernel_takes() -> None:
    subprocess.run(["true", "a" * LONGEST_ARGUMENT], check=True)
    with pytest.raises(OSError, match="too long"):
        subprocess.run(["true", "a" * (LONGEST_ARGUMENT + 1)], check=True)


@pytest.mark.parametrize("size", [16 * 1024, 64 * 1024])
def test_an_argument_may_be_longer_where_pages_are(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as on arm64 and ppc64le."""
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": size}.__getitem__)
    here = run_path(patterns.__file__)
    program = here["compile_program"]("/x *")
    assert program.allows("/x", ["a" * (32 * size - 1)])
    assert not program.allows("/x", ["a" * 32 * size])


def test_what_the_kernel_would_not_take_matches_nothing() -> None:
    for path in (compile_path("/a*"), compile_path("/")):
        assert path.fullmatch("/" + "a" * (LONGEST_PATH - 1))
        assert not path.fullmatch("/" + "a" * LONGEST_PATH)
    assert compile_name("*").fullmatch("a" * LONGEST_NAME)
    assert not compile_name("*").fullmatch("a" * (LONGEST_NAME + 1))
    program = compile_program("/x *")
    assert program.allows("/x", ["a" * LONGEST_ARGUMENT])
    assert not program.allows("/x", ["a" * (LONGEST_ARGUMENT + 1)])
