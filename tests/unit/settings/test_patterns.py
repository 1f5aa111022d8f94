"""What the patterns of rules match, and which of them are refused."""

from __future__ import annotations

import pytest

from qga.settings.patterns import compile_name, compile_path, compile_program, split_rules


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
