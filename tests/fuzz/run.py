"""Runs libFuzzer on a target: progress while it does, figures when it has ended."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, TextIO

from tests.fuzz.targets import Target

REPORT_INTERVAL = 30.0
"""Seconds between two lines of progress in a file; on a terminal one line is renewed."""

_INPUT_TIMEOUT = 20  # seconds for one input, which takes a millisecond
_PROGRESS = re.compile(r"#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)/")
_FOUND = re.compile(r"Test unit written to (\S+)")


class Figures(NamedTuple):
    """What a run came to; edges and features as libFuzzer counts them, corpus: inputs of use."""

    target: Target
    log: Path
    runs: int = 0
    edges: int = 0
    features: int = 0
    corpus: int = 0
    seconds: float = 0.0
    finding: str = ""
    interrupted: bool = False


def fuzz(target: Target, runs: int, seed: int, scratch: Path) -> Figures:
    """Try `runs` inputs more than the corpus has, unless there is a finding before."""
    new = scratch / target.name
    findings = scratch / "findings"
    for folder in (new, findings, target.corpus):
        folder.mkdir(parents=True, exist_ok=True)
    words = scratch / f"{target.name}.dict"
    words.write_text("".join(f'"{_escape(word)}"\n' for word in (*target.words, b"\0")))
    flags = [
        f"-runs={runs}",
        f"-seed={seed % 2**31 or 1}",
        f"-max_len={target.max_length}",
        f"-dict={words}",
        f"-timeout={_INPUT_TIMEOUT}",
        f"-report_slow_units={_INPUT_TIMEOUT}",
        f"-artifact_prefix={findings}/{target.name}-",
        "-reload=0",
    ]
    log = scratch / f"{target.name}.log"
    with _engine(target, *flags, str(new), str(target.corpus)) as process, log.open("w") as file:
        figures = _follow(process, file, Figures(target, log), runs)
    if process.returncode and not (figures.finding or figures.interrupted):
        raise RuntimeError(f"libFuzzer ended with status {process.returncode}: see {log}")
    return figures


def _follow(process: subprocess.Popen[str], log: TextIO, figures: Figures, wanted: int) -> Figures:
    """Read what libFuzzer prints up to its end; Ctrl-C brings that about."""
    assert process.stdout
    started = told = time.monotonic()
    while True:
        try:
            line = process.stdout.readline()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            figures = figures._replace(interrupted=True)
            continue
        if not line:
            break
        log.write(line)
        figures = _take(figures, line)._replace(seconds=time.monotonic() - started)
        if time.monotonic() - told > (1 if sys.stdout.isatty() else REPORT_INTERVAL):
            told = time.monotonic()
            _show(figures, wanted)
    if sys.stdout.isatty():
        print()
    return figures


def _take(figures: Figures, line: str) -> Figures:
    found = _FOUND.search(line)
    if found:
        return figures._replace(finding=found[1])
    progress = _PROGRESS.match(line)
    if progress:
        runs, edges, features, corpus = map(int, progress.groups())
        return figures._replace(runs=runs, edges=edges, features=features, corpus=corpus)
    return figures


def _show(figures: Figures, wanted: int) -> None:
    text = (
        f"{figures.target.name}: {figures.runs} of {wanted} inputs, {figures.edges} edges, "
        f"{figures.features} features, {figures.runs / figures.seconds:.0f}/s"
    )
    if sys.stdout.isatty():
        print(f"\r{text}\x1b[K", end="", flush=True)
    else:
        print(text, flush=True)


def keep(target: Target, scratch: Path) -> int:
    """Replace the kept corpus by the fewest inputs of it and of scratch that cover as much."""
    with tempfile.TemporaryDirectory() as folder:
        found = scratch / target.name
        found.mkdir(parents=True, exist_ok=True)
        flags = ["-set_cover_merge=1", f"-max_len={target.max_length}"]
        process = _engine(target, *flags, folder, str(target.corpus), str(found))
        output = process.communicate()[0]
        if process.returncode:
            raise RuntimeError(f"libFuzzer ended with status {process.returncode}:\n{output}")
        kept = list(Path(folder).iterdir())
        shutil.rmtree(target.corpus)
        target.corpus.mkdir()
        for path in kept:
            shutil.copyfile(path, target.corpus / path.name[:12])
    return len(kept)


def table(results: Iterable[Figures]) -> str:
    lines = ["target          inputs  edges  features  corpus  inputs/s"]
    total = 0
    for each in results:
        total += each.runs
        lines.append(
            f"{each.target.name:<12}{each.runs:>10}{each.edges:>7}{each.features:>10}"
            f"{each.corpus:>8}{each.runs / max(each.seconds, 1e-3):>10.0f}"
        )
    return "\n".join([*lines, f"{'in all':<12}{total:>10}"])


def tell(result: Figures) -> str:
    """What was found, and how to see it again."""
    name = result.target.name
    return (
        f"\n{name}: a finding; its traceback is in {result.log}\n"
        f"  see it again:  {sys.executable} -m tests.fuzz {name} --replay {result.finding}\n"
        f"  once mended:   cp {result.finding} {result.target.corpus}/"
    )


def _engine(target: Target, *flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz.engine", target.name, *flags],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C is passed on, once
    )


def _escape(word: bytes) -> str:
    """As libFuzzer's dictionaries have it."""
    return "".join(f"\\x{byte:02x}" for byte in word)
