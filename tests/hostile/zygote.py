"""Forks victims, so that modules are not imported again for each of a thousand runs.

Reads one JSON object per line from standard input, and writes one with what the run used. Started
as `python -m tests.hostile.zygote`, so that the process contains nothing but the victim.
"""

from __future__ import annotations

import fcntl
import gc
import io
import json
import os
import resource
import signal
import sys
import termios
import time
import traceback
from contextlib import redirect_stdout, suppress
from typing import Any

import rich.live
import rich.progress
import typer
import typer.main

from qga.client import captured, programs, tunnels
from qga.client.commands import files, freeze, readiness
from qga.client.copies import shell_files
from qga.client.copies.plain_files import PlainFiles
from qga.client.copies.shell_files import ShellFiles
from qga.ctl import relay
from qga.ctl.cli import app, run
from tests.hostile import methods

MB = 1 << 20


def warm_up() -> None:
    """typer makes its commands anew for each call; here they are made once for all victims.

    The first call imports modules, such as pydantic, which take longer than the call.
    """
    command = typer.main.get_command(app)
    typer.main.get_command = lambda typer_instance: command
    rich.get_console()
    with redirect_stdout(io.StringIO()), suppress(SystemExit):
        command(["ping", "--help"])
    gc.collect()
    gc.freeze()


def hurry() -> None:
    """Skip waits that are intended, which these tests do not measure."""
    freeze.RETRIES_END, freeze.RETRY_DELAY = 0.1, 0.02
    freeze.Freezing.thaw.__kwdefaults__["timeout"] = 1.0  # type: ignore[index]
    relay.GRACE = programs.GRACE = programs.LAST_BYTES = 0.3
    shell_files.PATIENCE = shell_files.TIDYING = 0.3
    files.SLACK = ShellFiles.slack = PlainFiles.slack = 0.3
    tunnels.MARGIN = tunnels.LAST_BYTES = captured.LAST_WORDS = readiness.WATCH_PATIENCE = 0.3


def serve() -> None:
    hurry()
    warm_up()
    for line in sys.stdin:
        print(json.dumps(attempt(json.loads(line))), flush=True)


def attempt(order: dict[str, Any]) -> dict[str, Any]:
    start = time.monotonic()
    pid = os.fork()
    if not pid:
        status = 99
        try:
            become(order)
            status = victim(order)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 98
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status & 0xFF)
    status, usage, killed = wait(pid, order["seconds"])
    return {
        "status": os.waitstatus_to_exitcode(status),
        "killed": killed,
        "seconds": time.monotonic() - start,
        "cpu": usage.ru_utime + usage.ru_stime,
        "memory": usage.ru_maxrss * 1024,
    }


def wait(pid: int, seconds: float) -> tuple[int, resource.struct_rusage, bool]:
    """Its status and resource usage. It is killed if it takes longer."""
    deadline = time.monotonic() + seconds
    killed = False
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return status, usage, killed
        if time.monotonic() > deadline and not killed:
            os.killpg(pid, signal.SIGKILL)
            killed = True
        time.sleep(0.002)


def become(order: dict[str, Any]) -> None:
    """Become a separate session with its own streams, directory and limits."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        os.dup2(os.open(order[name], os.O_RDWR | os.O_CREAT, 0o600), descriptor)
    if os.isatty(0):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0)), encoding="utf-8")
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w")), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(2, "w")), "utf-8", line_buffering=True
    )
    os.chdir(order["directory"])
    os.environ.clear()
    os.environ.update(order["environment"])
    limit = order["address_space"]
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def victim(order: dict[str, Any]) -> int:
    if order["methods"]:
        methods.call_all(order["methods"])
        return 0
    sys.argv = ["qgactl", *order["argv"]]
    return run()


if __name__ == "__main__":
    serve()
