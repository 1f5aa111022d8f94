"""Cases of guest-file-*: faulty requests, and small scripts on the scratch folder."""

from __future__ import annotations

from tests.differential.agents import Look
from tests.differential.requests import call, given, script, words

TEXT = b"first line\nsecond line\n\x00\xff\xfe last"


def opened(mode: str, name: str = "text") -> bytes:
    path = name if name.startswith("/") else f"@scratch/{name}"
    return call("guest-file-open", f'"path":"{path}","mode":"{mode}"')


def read(count: str = "") -> bytes:
    return call("guest-file-read", '"handle":@handle' + (f',"count":{count}' if count else ""))


def write(data: str, count: str = "") -> bytes:
    tail = f',"count":{count}' if count else ""
    return call("guest-file-write", f'"handle":@handle,"buf-b64":"{data}"{tail}')


def seek(offset: str, whence: str) -> bytes:
    return call("guest-file-seek", f'"handle":@handle,"offset":{offset},"whence":{whence}')


FLUSH = call("guest-file-flush", '"handle":@handle')
CLOSE = call("guest-file-close", '"handle":@handle')
HELLO = "aGVsbG8="

BAD_HANDLES = [
    "",
    *words("""
        "handle":1 "handle":-1 "handle":"1000" "handle":1.0 "handle":null "handle":true
        "handle":9223372036854775808 "handle":1,"x":1 "x":1
    """),
]

WRONG_MODES = words("""
    x rr rw b R r~ rb+b r++ rbb br wx re +r \\u0000 r\\u0000 é rt r+bb b+r
""")
MODES = words("r w a r+ w+ a+ rb wb ab rb+ wb+ ab+ r+b w+b a+b")

OPEN = [
    *given(
        "guest-file-open",
        "",
        *words(r"""
            "path":1 "path":null "mode":"r" "path":"@scratch/text","mode":1
            "path":"@scratch/text","mode":null "path":"@scratch/text","x":1 "path":1,"mode":1
            "path":"","mode":"r" "path":"@scratch/none" "path":"@scratch/none","mode":"r+"
            "path":"@scratch/no\u0000ne" "path":"@scratch/\u00e9\"" "path":"@scratch/none/none"
            "path":"@scratch/text/none" "path":"@scratch/folder","mode":"w"
            "path":"@scratch/dangling" "path":"@scratch/dangling","mode":"w"
            "path":"@scratch/fifo","mode":"w" "path":"@scratch/text/","mode":"r"
            "path":"@scratch/none/","mode":"w" "path":"@scratch/none","mode":""
            "path":"@scratch/text/","mode":"w" "path":"@scratch/text/","mode":"a+"
        """),
        *(f'"path":"@scratch/none","mode":"{mode}"' for mode in WRONG_MODES),
    ),
    *(
        script(f"open in mode {mode}", opened(mode), write("bmV3"), read("99"), CLOSE, Look("text"))
        for mode in MODES
    ),
    script("open by default", call("guest-file-open", '"path":"@scratch/text"'), read(), CLOSE),
    script("open a new file", opened("w", "new"), write("bmV3"), CLOSE, Look("new")),
    script("open a folder", opened("r", "folder"), read(), CLOSE),
    script("open through a link", opened("r", "link"), read(), CLOSE),
    *(script(f"open a link in mode {mode}", opened(mode, "link")) for mode in ("w", "r+", "a")),
    script("open a fifo", opened("r", "fifo"), read("5"), CLOSE),
    script(
        "open a fifo for both",
        *(opened("r+", "fifo"), read("5"), write(HELLO), FLUSH, read("5"), CLOSE),
    ),
]

READ = [
    *given(
        "guest-file-read",
        *BAD_HANDLES,
        *words("""
            "handle":1,"count":"1" "handle":1,"count":-1 "handle":1,"count":null
            "handle":"x","count":"y"
        """),
    ),
    script(
        "read piece by piece",
        *(opened("r"), read("5"), read("6"), read("0"), read("99"), read("1"), CLOSE),
    ),
    script("read just to the end", opened("r"), read(str(len(TEXT))), read("10"), read(), CLOSE),
    script(
        "read wrong counts",
        opened("r"),
        *map(read, ["-1", "50331649", "1.0", '"1"', "9223372036854775808", "-9223372036854775808"]),
        read("5"),
        CLOSE,
    ),
    script("read as much as may be", opened("r"), read("50331648"), CLOSE),
    script(
        "read a large file",
        *(opened("r", "large"), read(), read("65536"), read("1000000"), read("1000000"), CLOSE),
    ),
    script("read an empty file", opened("r", "empty"), read(), read("0"), CLOSE),
    script("read what cannot be read", opened("w", "new"), read("5"), read("0"), CLOSE),
    script("read zeros", opened("r", "/dev/zero"), read("10"), read(), CLOSE),
    script("read of /proc", opened("r", "/proc/version"), read("10"), read(), read(), CLOSE),
]

BASE64 = [
    "",
    *words(r"""
        YQ== YQ YQ= Y YWI= YWI YWJj aGVsbG8 YQ==YQ== YQ==YQ = == ==== =YQ= Y=Q= YQ=x Y=== YWJj=
        YWJjZ YWJjZA $$ YQ=~= ~YQ== YQ==\n Y\nQ\n=\n= \n YQ==\r\n YQ==\t YQ-_ YQ==\u0000 \u0000
        YQ\u00e9= +/+/ YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXo= YQ==YWJj YWI=YWJj =YWJj ==YWJj ===YWJj
    """),
]

WRITE = [
    *given(
        "guest-file-write",
        *BAD_HANDLES,
        *words("""
            "buf-b64":"YQ==" "handle":1,"buf-b64":1 "handle":1,"buf-b64":"$$"
            "handle":1,"buf-b64":"YQ==","count":"1" "handle":1,"buf-b64":"YQ==","count":-1
            "handle":1,"buf-b64":null "handle":1,"buf-b64":"YQ==","x":1
        """),
    ),
    *(script(f"base64 {data}", opened("w"), write(data), CLOSE, Look("text")) for data in BASE64),
    script(
        "write counts",
        opened("w"),
        *(write(HELLO, count) for count in ("2", "5", "6", "-1", "0", "", '"1"', "null", "1.0")),
        *(write("", count) for count in ("", "0", "1")),
        CLOSE,
        Look("text"),
    ),
    script(
        "write what cannot be written",
        *(opened("r"), write(HELLO), write(""), write(HELLO, "0"), FLUSH, CLOSE, Look("text")),
    ),
    script(
        "write and seek",
        *(opened("w+"), write("aGVsbG8gd29ybGQ="), seek("0", '"set"'), write("SEVM")),
        *(seek("0", '"set"'), read(), CLOSE, Look("text")),
    ),
    script(
        "write and read in turn",
        *(opened("r+"), write("MTIz"), read("4"), write("NDU2"), read("99"), CLOSE, Look("text")),
    ),
    script(
        "append",
        *(opened("a+"), read("5"), write("ZW5k"), seek("0", '"set"'), write("ZW5k")),
        *(seek("-6", '"end"'), read("10"), CLOSE, Look("text")),
    ),
    script(
        "write and flush",
        *(opened("w"), write(HELLO), FLUSH, Look("text"), write(HELLO), FLUSH, Look("text"), CLOSE),
    ),
    script("write past the end", opened("w"), seek("5", "0"), write("eA=="), CLOSE, Look("text")),
    script("write to a full disk", opened("w", "/dev/full"), write(HELLO), FLUSH, CLOSE),
    script("close on a full disk", opened("w", "/dev/full"), write(HELLO), CLOSE),
]

WHENCES = words(r"""
    0 3 "set" "SET" "x" "" null true [] {} 1.0 1.5 "set\u0000" -1 9223372036854775808 "seek-set"
""")

SEEK = [
    *given(
        "guest-file-seek",
        *BAD_HANDLES,
        *words("""
            "handle":1,"offset":1 "handle":1,"whence":0 "handle":1,"offset":"1","whence":0
            "handle":1,"offset":1,"whence":0,"x":1
        """),
        *(f'"handle":1,"offset":1,"whence":{whence}' for whence in WHENCES),
    ),
    script(
        "seek",
        *(opened("r"), seek("5", "0"), seek("5", "1"), seek("-5", "2"), seek("5", '"set"')),
        *(seek("5", '"cur"'), seek("-5", '"end"'), seek("0", "1"), read("3"), seek("0", '"cur"')),
        *(seek("100", '"set"'), read("1"), seek("0", '"set"'), read("2"), CLOSE),
    ),
    script(
        "seek where nothing is",
        *(opened("r"), seek("-1", '"set"'), seek("-1", '"cur"'), seek("-1000", '"end"')),
        *(seek("0", "3"), seek("0", "-1"), seek("0", '"SET"'), seek("0", "1.0")),
        *(seek("0", "4294967296"), seek("0", '"cur"'), seek("1", '"cur"'), read("5"), CLOSE),
    ),
    script(
        "write to a fifo that was read",
        *(opened("r+", "fifo"), write(HELLO), FLUSH, read("3"), write("YQ=="), CLOSE),
    ),
    script("seek in a device", opened("r", "/dev/urandom"), seek("3", '"set"'), CLOSE),
    script(
        "seek to the end of /proc",
        *(opened("r", "/proc/version"), seek("0", '"end"'), read("5"), seek("-1", '"end"'), CLOSE),
    ),
    script(
        "seek as far as may be",
        *(opened("r"), seek("9223372036854775807", '"set"'), read("1"), seek("1", '"cur"')),
        *(seek("9223372036854775807", '"end"'), seek("-9223372036854775808", '"end"'), CLOSE),
    ),
    script("seek in a fifo", opened("r+", "fifo"), seek("0", '"set"'), seek("-5", '"set"'), CLOSE),
    script(
        "seek after the end", opened("r"), read("99"), read("9"), seek("0", "1"), read("1"), CLOSE
    ),
]

FLUSH_AND_CLOSE = [
    *given("guest-file-flush", *BAD_HANDLES),
    *given("guest-file-close", *BAD_HANDLES),
    script("close twice", opened("r"), CLOSE, CLOSE),
    script(
        "use after close",
        *(opened("r"), CLOSE, read(), write("YQ=="), write("$$"), read("-1")),
        *(seek("0", '"x"'), seek("0", "7"), FLUSH),
    ),
    script("flush what was read", opened("r"), read("5"), FLUSH, read("5"), CLOSE),
    script("two files at once", opened("r"), opened("r"), read("5"), CLOSE),
]

FILES = [*OPEN, *READ, *WRITE, *SEEK, *FLUSH_AND_CLOSE]
