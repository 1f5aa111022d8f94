"""Cases of guest-exec and guest-exec-status; nothing that is run here has an effect."""

from __future__ import annotations

from tests.differential.agents import Case, Step, Until
from tests.differential.requests import call, given, script, words

STATUS_ONCE = call("guest-exec-status", '"pid":@pid')
STATUS = Until(STATUS_ONCE, b'"exited": false')


def run(name: str, arguments: str, *more: Step) -> Case:
    """Run a program and get its final status."""
    return script(f"exec: {name}", call("guest-exec", arguments), STATUS, *more)


def program(name: str, path: str, arguments: str) -> Case:
    return run(name, f'"path":"{path}","arg":[{arguments}],"capture-output":true')


def shell(name: str, command: str, rest: str = "") -> Case:
    return run(name, f'"path":"/bin/sh","arg":["-c","{command}"],"capture-output":true{rest}')


def modes(mode: str) -> Case:
    command = '"path":"/bin/sh","arg":["-c","echo out; echo err >&2"]'
    case = run(f'capture-output "{mode}"', f'{command},"capture-output":"{mode}"')
    # QEMU's 11.1.3 closes descriptors that it needs: the record `capture-one-stream`.
    return case._replace(breaks=mode in ("stdout", "stderr"))


def with_true(*arguments: str) -> list[str]:
    return [f'"path":"/bin/true",{argument}' for argument in arguments]


REFUSED = [
    *given(
        "guest-exec",
        "",
        *words(r"""
            "path":1 "path":null "arg":[] "path":1,"arg":1,"x":1 "path":"" "path":"/nonexistent"
            "path":"nonexistent-command" "path":"@scratch/text" "path":"@scratch"
            "path":"@scratch/text/x" "path":"/non\u0000existent" "path":"/\u00e9\"\n"
            "path":"true","env":["PATH=/nonexistent"]
        """),
        *with_true(
            *words("""
                "arg":"a" "arg":{} "arg":[1] "arg":["a",1] "arg":["a",null] "arg":null
                "env":"A=1" "env":[1] "env":[["A"]] "input-data":1 "input-data":"$"
                "capture-output":1 "capture-output":null "capture-output":"nothing"
                "capture-output":[] "capture-output":1.5 "capture-output":{} "x":1 "inherit":true
            """)
        ),
    ),
    *given(
        "guest-exec-status",
        "",
        *words("""
            "pid":"1" "pid":1.0 "pid":null "pid":1 "pid":-1 "pid":0 "pid":9223372036854775807
            "pid":9223372036854775808 "pid":1,"x":1 "x":1
        """),
    ),
]

RUN = [
    run("true", '"path":"/bin/true"', STATUS_ONCE),
    run("false", '"path":"/bin/false"'),
    run("found by PATH", '"path":"true"'),
    run("captured", '"path":"/bin/echo","arg":["a"],"capture-output":true', STATUS_ONCE),
    run("not captured", '"path":"/bin/echo","arg":["a"]'),
    run("capture-output false", '"path":"/bin/echo","arg":["a"],"capture-output":false'),
    run("input that is not asked for", '"path":"/bin/true","input-data":"YQ=="'),
    program("arguments", "/bin/echo", '"a","b c","","$HOME"'),
    program("no arguments", "/bin/echo", ""),
    run(
        "odd environment",
        '"path":"/usr/bin/env","env":["A=1","B","=C","A=2","D=a=b"],"capture-output":true',
    ),
    program("NUL in an argument", "/bin/echo", '"a\\u0000b","\\u00e9"'),
    program("name as given", "sh", '"-c","echo $0"'),
    program("script without #!", "@scratch/script", '"x"'),
    *map(modes, words("none stdout stderr separated merged")),
]

SHELL = [
    shell("both streams", "echo out; echo err >&2"),
    shell("only stderr", "echo err >&2"),
    shell("exit code", "exit 42"),
    shell("exit code after output", "echo x; exit 255"),
    shell("signal", "kill -9 $$"),
    shell("signal after output", "echo x; kill -15 $$"),
    shell("no input", "cat; echo end"),
    shell("input", "cat; echo end", ',"input-data":"aGVsbG8="'),
    shell("empty input", "cat; echo end", ',"input-data":""'),
    shell("input of lenient base64", "cat; echo end", ',"input-data":"aGVsbG8"'),
    shell("input not read", "echo end", f',"input-data":"{"YWJj" * 100_000}"'),
    shell("long input and output", "cat", f',"input-data":"{"YWJj" * 300_000}"'),
    shell("environment replaced", "env | sort", ',"env":["A=1","B","C=x=y","A=2"]'),
    shell("environment emptied", "env | sort", ',"env":[]'),
    shell("environment inherited", "echo $PATH $LC_ALL $TZ"),
    shell("HOME of a child", "echo $HOME $USER $LOGNAME"),
    shell("descriptors", "ls /proc/self/fd"),
    shell("signals", "grep -E 'Sig(Blk|Ign)' /proc/self/status"),
    shell("umask", "umask"),
    shell("output not UTF-8", "printf '\\\\377\\\\000\\\\n'"),
]

EXEC = [*REFUSED, *RUN, *SHELL]

LIMITS = [
    shell("as much output as is kept", "head -c 16777216 /dev/zero"),
    shell("more output than is kept", "head -c 16777217 /dev/zero; head -c 16777216 /dev/zero >&2"),
]
