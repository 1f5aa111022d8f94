"""Cases of the protocol: framing, JSON and its errors, the envelope, ids, limits.

Each is a few bytes; what counts is the whole of what they are answered with, the left-overs of a
bad request included.
"""

from __future__ import annotations

from tests.differential.agents import Case
from tests.differential.requests import words

PING = b'{"execute":"guest-ping"}'
SYNC = b'{"execute":"guest-sync","arguments":{"id":%d}}'
DELIMITED = b'{"execute":"guest-sync-delimited","arguments":{"id":%d}}'

TOKENS = 2 * 1024 * 1024
SIZE = 64 * 1024 * 1024
DEPTH = 1024


def topic(name: str, *inputs: bytes) -> list[Case]:
    """One case for each input, named by it."""
    return [Case(f"{name}: {readable(data)}", (data,)) for data in inputs]


def readable(data: bytes) -> str:
    return data.decode("latin-1").encode("unicode_escape").decode()


def with_id(*values: bytes) -> list[bytes]:
    return [b'{"execute":"guest-ping","id":%s}' % value for value in values]


def spelled(text: str) -> list[bytes]:
    return [word.encode() for word in words(text)]


FRAMING = topic(
    "framing",
    PING,
    PING + b"\n",
    PING + b"\r\n",
    b" \t\r\n" + PING,
    b"",
    b" \t\r\n",
    PING * 3,
    PING + b"\n" + PING + b" " + PING,
    b'{\n\t"execute" :\r\n "guest-ping" }',
    SYNC % 1 + DELIMITED % 2 + PING,
    b"\xff" + DELIMITED % 3,
    DELIMITED % 4 + PING,
    b"\xff\xff" + PING,
    b"\xfe\xfe" + PING,
    b'\xff"x"' + PING,
    b"\xffabc" + PING,
    b"\xff 1 " + PING,
    b"\xff\n1 " + PING,
    b"\xff\t1 " + PING,
    b"\xff1,",
    b'\xff"a{b"' + PING,
    b'{"execute":"guest-pi\xff' + PING,
    b'{"execute":"guest-ping","id":1\xff}' + PING,
    b'{"execute":"guest-ping","id":1.\xff}' + PING,
    b'{"execute":"guest-ping","id":-\xff}' + PING,
    b'{"execute":"guest-ping","id":nul\xff}' + PING,
    b"[1,\xff2]",
    b"1\xff",
    b"1.5\xff",
    b"nope\xff",
    b'"\\\xff',
    b"\xef\xbb\xbf" + PING,
    b"\0" + PING,
    b"// comment\n" + PING,
    b"/* comment */" + PING,
    b"# comment\n" + PING,
)

TOP_LEVEL = topic(
    "top level",
    *spelled("""
        "x" "x""y" 'x''y' "x"'y' 1{} 1"x" 1, 1: 1~2~3~ null~ null{} true~false~ 1.5~ [] [[]] [1]
        "x"1"y"null[]{} 1 - 1. null "a"} "a"] "a", "a": , : { [ } ] {} ,,, ::: ]] }{ }{} ]{} ,{} :{}
    """),
)

NUMBERS = topic(
    "number",
    *(
        number + end
        for number in spelled("""
            -0 - -a 1a 01 00 1.e5 1. 1e 1e+ 1E5 1.5e+3x .5 +1 -01 -1 1.5 1e5 1e-5 1e5.0 1.5.5 1-1
            1+1 --1 -. 0.0 0. 0e 0e1 1_0 0x10 1e5a 1.5e 1ee 12A 1" 1' 1[ 1] 1} 1, 1: 1.} 1e} 1e, 0-
            1.a 1.T -T -" -{ -, 0.0e5 -{{
        """)
        for end in (b"{}", b"\n{}")
    ),
)

KEYWORDS = topic(
    "keyword",
    *spelled("""
        nul{} truex{} true1{} nullnull{} tRue{} TRUE{} True{} true{} t-1{} true_{} true.x{} inf{}
        nan~ NaN~ Infinity~ true"x"{} true'x'{} [true] [truf]{} {"a":nope} {nope:1} [aaa,bbb] [aaa
        [aaa~bbb] {"a":truE}{"execute":"guest-ping"} {"a":1,aaa:2,"a":3}
    """),
)
KEYWORDS += [
    Case(f"keyword: of {length} letters", (b"a" * length + b"\n" + PING,))
    for length in (1005, 1006, 1007, 5000)
]

STRUCTURE = topic(
    "structure",
    *spelled(r"""
        {] [} [}] {[}] {]} {1:2} {1} {"a"} {"a"~1} {"a":1~"b":2} {"a":1,} {,} {:} [,] [:] [1~2]
        [1,,2] {"a":1,"a":2} {true:1} {"a":} {"a":1,2} {"a":1,2:3} {"a",1} {"a"}} {"a":1]} {"a":1]
        {"a":[1}} {"a":[1}]} [1}2] [1,] [1:2] [1,2 {{}} {{}:1} {[]:1} {[1~2]:1} [[] [[1]~2]
        {"a":1:2} {"a"::1} {"a",} {1,2} {~} [~] {"a":1}} [1]] {1:} {null} {"a":nope~"b"}
        {"a":1,"a":} {"a":1,"a":nope} {"a":nope,"a":1} {"a":1,"a"~2} {"a":1,"a"} {"a":1,"a":2,3}
        {"a":1,"a":2~"b":3} [nope,] [nope~1] {"\x":1} {"a":"\x"} {"\x"} {"\x"~1} {"a":1,"\x":1}
        ["\x","\u12"] ["\u12","\x"] {"a":1,"\u0061":2} {"a":{"b":1,"b":2}} [}{] [}{}] [{]} {{} {1}}
        {"a":}{"b":1} {"a"~"b"} {"execute":"guest-ping"}} {"execute":"guest-ping"}]
        {"execute":"guest-ping"}, {"execute"~"guest-ping"} {"execute":"guest-ping",}
        {"execute":"guest-ping"~"id":1} {"execute":"guest-ping","execute":"guest-info"}
        {"execute":"guest-ping","id":1,"id":2} {{"execute":"guest-ping"}}
        [{"execute":"guest-ping"}] {"a":{"execute":"guest-ping"}
    """),
)

STRAY = topic(
    "stray",
    *(bytes([c]) + b"{}" for c in range(256) if chr(c) not in "\"'" and not bytes([c]).isalnum()),
    *(b"$%sx{}" % bytes([c]) for c in (0, 1, 9, 10, 13, 31, 32, 34, 44, 58, 127, 128, 253, 254)),
    b'{"execute":%s}\n',
    b'$ x y "z"\n' + PING,
    b'$ "{" {}',
    b"{$:1 }",
    b"{$}{}",
    b"[$]{}",
    b"[1,$]",
    b'{"a":$}',
    b'{"a":[$]}' + PING,
    b'{"a":{"b":$ "c":1}}' + PING,
    b"\xc3\xa9{}",
    b"\xf0\x9f\x98\x80 {}",
    b"1\xc3\xa9{}",
    b"-\xc3\xa9{}",
    b"nul\xc3\xa9{}",
    b"1.\xc3\xa9{}",
    b'"%s\n' % (b"a" * 1500),
    b"'%s\n" % (b"\xc3\xa9" * 1500),
)

INVALID_UTF8 = [
    bytes.fromhex(sequence)
    for sequence in """
        80,8080,c0,c080,c081,c1bf,c3,c3c3,c378,c38080,c280,c27f,e0808080,e09fbf,e282,e28278,e2e282ac,
        e282c3a9,eda080,eda0bdedb880,efbfbd,efbfbe,efbfbf,efb78f,efb790,efb7af,efb7b0,f09f98,f09f,
        f08fbfbf,f0908080,f09f9880,f09fbfbe,f48fbfbd,f48fbfbf,f4908080,f5808080,f7bfbfbf,f888808080,
        f88880808080,fbbfbfbfbf,fc8480808080,fdbf,f09f789880,e08080,ed9fbf,e0a080,efbbbf
    """.replace("\n", "").split(",")
]

STRINGS = topic(
    "string",
    *(b'"a' + sequence + b"z\n" for sequence in INVALID_UTF8),
    *(b'"a' + sequence + b'z"{}' for sequence in INVALID_UTF8),
    *(quote + b"a%sb" % bytes([c]) + quote + b"{}" for c in range(32) for quote in (b'"', b"'")),
    *(b'"a%sb"{}' % bytes([c]) for c in (127, 128, 0xBF, 0xC0, 0xF4, 0xF5, 0xFD, 0xFE, 0xFF)),
    *(
        quote + b"a\\" + escaped + b"z" + quote + b"{}"
        for quote in (b'"', b"'")
        for escaped in (
            *(bytes([c]) for c in range(128)),
            *(b"\x80", b"\xc0", b"\xc3\xa9", b"\xc3", b"\xfd", b"\xfe", b"\xff", b"u0041"),
        )
    ),
    b"'it''s'",
    b'"\\u12\n"{}',
    b'["\\u12\xff',
    b'"\\u\xff"',
    b'"\\u12\xc3\xa9"{}',
    b'"\\u1\xc3\xa9x"{}',
    b'"\\u123\xc3\xa9"{}',
    b'"\\u12\x80z"{}',
    b'"\\x\xc3"{}',
    b'"\xc3\\x"{}',
    b'"\\ud83d\xc3\xa9"{}',
)

IDS = topic(
    "id",
    *with_id(
        *spelled(r"""
            0 -0 1 -1 9223372036854775807 9223372036854775808 18446744073709551615
            18446744073709551616 -9223372036854775808 -9223372036854775809 -0.0 0.0 1.0 0.1 1e5
            1E22 1e16 1e17 1e-5 1e-4 123456789012345678901234567890 1.5 -1.5 1e100 1e308
            1.7976931348623157e308 1e-400 5e-324 2.5e-308 3.14 12345678901234567
            12345678901234567.0 0.30000000000000004 -1e-7 null true false [] {} [1,[2,{}]]
            {"b":1,"a":2} {"a":{"b":[null]}} "" '' "/" 'a"b' "a'b" 'a\'b' 'a\"b' "a\'b" {'a':'b'}
            {"":1} {"a\u0000b":1,"a":2} {"\n":1}
            "\ud83d" "\ude00" "\ud83d\u0041" "\ud83d\ud83d" "\ud83d\ude00" "\ud83f\udffe"
            "\uD83F\uDFFF" "\u0000" "\uFFFE" "\uFFFF" "\uFDD0" "\uFDEF" "\uFDCF" "\uFDF0" "\uFFFD"
            "\u00e" "\u00" "\u0" "\u" "\u00g0" "\u12G4" "\u+123" "\u~123" "\u00e9" "\u007f"
            "\u0001" "\x" "\/" "\'" "\v" "\ud83dx" "\ud83d\n" "\ud83d\u" "\ud83d\u12"
            "\ud83d\u12G4" "\ud83d\\ude00" "\ud800\udc00" "\udbff\udfff" "\udbff\udffd"
            "\uDC00\uD800" "\ud83d\u0000" "\u0022" "\u005c" "\b\f\n\r\t\"\\\/" "\u12"34"
            "\u0008\u000b\u001f\u0080\u00ff\u0100" "\u12\n34" "\U0041" "\uabcd"
        """),
        b"1" + b"0" * 308,
        b'"\x7f"',
        b'"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"',
        b'{"\xc3\xa9":1}',
        *(b'"%s"' % sequence for sequence in INVALID_UTF8),
    ),
    *(PING[:-1] + b',"id":%s}' % too_large for too_large in (b"1e400", b"-1e400", b"[1.8e308]")),
    b'{"execute":"nope","id":{"b":[1],"a":"\xc3\xa9"}}',
    b'{"id":1,"execute":1}',
    b'{"id":1,"execute":"guest-ping"}',
)

ENVELOPE = topic(
    "envelope",
    *spelled(r"""
        {} {"execute":1} {"execute":1,"foo":2} {"foo":2,"execute":1} {"foo":2} {"foo":2,"bar":1}
        {"bar":1,"foo":2} {"execute":null} {"execute":"nope"} {"execute":"nope","arguments":1}
        {"arguments":1} {"arguments":1,"foo":1} {"foo":1,"arguments":1}
        {"execute":1,"arguments":1} {"arguments":1,"execute":1} {"arguments":{}} {"id":1}
        {"id":null} {"id":1,"foo":2} {"execute":"nope","id":1} {"execute":"nope","foo":1,"id":1}
        {"execute":"guest-ping","arguments":null} {"execute":"guest-ping","arguments":[]}
        {"execute":"guest-ping","arguments":{}} {"execute":"guest-ping","arguments":{"x":1}}
        {"execute":"guest-ping","arguments":{"y":1,"x":1}}
        {"execute":"guest-ping","arguments":{"x":1,"y":1}} {"exec-oob":"guest-ping"}
        {"execute":"guest-ping","control":{}} {"execute":""} {"execute":"~guest-ping"}
        {"execute":"Guest-Ping"} {"execute":"guest_ping"} {"execute":"a\"b\n\u00e9"}
        {"execute":"guest-ping\u0000"} {"execute\u0000":"guest-ping"} {"execute":"guest-ping","é":1}
        {"execute":"guest-ping","%s":1} {"execute":"%s"} {"EXECUTE":"guest-ping"}
        {'execute':'guest-ping'} {"execute":"nope","arguments":[{}],"b":1}
    """),
    b'{"execute":"%s"}' % (b"x" * 1500),
    b'{"%s":1}' % (b"x" * 1500),
)


def limit(name: str, data: bytes) -> Case:
    return Case(f"limits: {name}", (data,))


FILLED = b'[ "' + b"\\n" * 100 + b'%s" \n ]'
"""200 bytes of escapes, which count as sent, four others, and white space, which does not count."""

LIMITS = [
    limit("depth, all", b"[" * DEPTH + b"]" * DEPTH + PING),
    limit("depth, one more", b"[" * (DEPTH + 1) + b"]" * (DEPTH + 1) + PING),
    limit("depth, objects, all", b'{"a":' * DEPTH + b"1" + b"}" * DEPTH),
    limit("depth, objects, one more", b'{"a":' * (DEPTH + 1) + b"1" + b"}" * (DEPTH + 1)),
    limit("depth, mixed", b'[{"a":' * (DEPTH // 2) + b"[" + PING),
    limit("depth, twice over", b"[" * (2 * DEPTH + 2) + PING),
    limit("depth, of an id", with_id(b"[" * (DEPTH - 1) + b"]" * (DEPTH - 1))[0]),
    limit("depth, of an id, one more", with_id(b"[" * DEPTH + b"]" * DEPTH)[0]),
    limit("tokens, all", b"[1" + b",1" * ((TOKENS - 4) // 2) + b",]" + PING),
    limit("tokens, one more", b"[1" + b",1" * ((TOKENS - 2) // 2) + b"]" + PING),
    limit("size, all", FILLED % (b"a" * (SIZE - 205)) + PING),
    limit("size, one more", FILLED % (b"a" * (SIZE - 204)) + PING),
    limit("size, an endless string", b'["' + b"a" * (SIZE + 5) + b"\n" + PING),
    limit("size, an endless number", b"1" * (SIZE + 5) + b" " + PING),
    limit("size, skipped bytes do not count", b"$" + b"x" * (SIZE + 5) + PING),
]
