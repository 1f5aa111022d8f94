"""^C before qgactl has begun: no traceback, and the status that a shell expects."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

MAIN = [sys.executable, "-c", "from qga.ctl.main import main; main()", "list"]

LOAD_SLOWLY = "import os, time; os.write(1, b'loading\\n'); time.sleep(30)\n"


@pytest.fixture(params=["typer", "rich"])
def slow_library(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment of a qgactl that is still loading this library."""
    (tmp_path / f"{request.param}.py").write_text(LOAD_SLOWLY)
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_libraries_load(
    slow_library: dict[str, str], number: signal.Signals
) -> None:
    with subprocess.Popen(
        MAIN,
        env=slow_library,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"loading\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (-number, b"")


def test_a_background_job_of_a_shell_keeps_ignoring_it(slow_library: dict[str, str]) -> None:
    """A shell without job control starts `qgactl … &` with SIGINT ignored."""
    with subprocess.Popen(
        ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", *MAIN],
        env=slow_library,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"loading\n"
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.kill()


def test_nothing_is_loaded_before_signals_are_seen_to() -> None:
    """A ^C in the middle of that would print a traceback."""
    script = "import sys; from qga.ctl.main import main; print(*sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    ours = [name for name in run.stdout.split() if name.partition(".")[0] in ("qga", "commands")]
    assert ours == ["qga", "qga.ctl", "qga.ctl.main", "qga.version"]


@pytest.mark.parametrize("moment", ["begins", "has ended"])
def test_a_signal_beside_the_command(moment: str) -> None:
    script = f"""
import io, os, signal
from qga.ctl import cli, main
os.environ["QGA_HOST_ROOT"] = "/nonexistent"
run = cli.run
def interrupted():
    if {moment == "begins"}:
        signal.raise_signal(signal.SIGINT)
    run()
    signal.raise_signal(signal.SIGINT)
cli.run = interrupted
main.main()
"""
    argv = [sys.executable, "-c", script, "--help"]
    done = subprocess.run(argv, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (130, b"")
