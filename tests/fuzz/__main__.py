"""The fuzzer's command line: run the targets one after the other, replay a finding, keep inputs."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from zlib import adler32

from tests.fuzz import run
from tests.fuzz.targets import TARGETS, Target

ROOT = Path(__file__).parents[2]

INTERRUPTED = 130  # the exit status of what Ctrl-C has ended, as a shell tells it


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    targets = [TARGETS[name] for name in options.targets or TARGETS]
    if options.replay:
        return _replay(targets, options.replay)
    if options.keep:
        for target in targets:
            print(f"{target.name}: {run.keep(target, options.scratch)} inputs in {target.corpus}")
        return 0
    return _fuzz(targets, options.runs, options.seed, options.scratch)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Coverage-guided fuzzing; without --replay or "
        "--keep: run the fuzzer. Ctrl-C ends it."
    )  # fmt: skip
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs in all (%(default)s)")
    parser.add_argument("--seed", type=int, help="the same seed tries the same inputs")
    parser.add_argument(
        "--scratch",
        type=Path,
        default=ROOT / ".cache" / "fuzz",
        help="where new inputs, logs and findings go (%(default)s)",
    )
    parser.add_argument("--replay", nargs="+", type=Path, metavar="FILE", help="try these inputs")
    parser.add_argument(
        "--keep", action="store_true", help="make the kept corpus of it and of what was found"
    )
    options = parser.parse_args(argv)
    for name in options.targets:
        if name not in TARGETS:
            parser.error(f"there is no target {name}; use {', '.join(TARGETS)}")
    if options.replay and len(options.targets) != 1:
        parser.error("name the one target to replay the inputs with")
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1, 2**31)
    return options


def _replay(targets: Sequence[Target], paths: Sequence[Path]) -> int:
    """A traceback for the first input that is a finding; silence and 0 where none is."""
    (target,) = targets
    test_one = target.load()
    for path in paths:
        print(f"{path}: {path.read_bytes()!r}")
        test_one(path.read_bytes())
    return 0


def _fuzz(targets: Sequence[Target], runs: int, seed: int, scratch: Path) -> int:
    print(f"{runs} inputs, --seed {seed}; new ones, logs and findings go to {scratch}", flush=True)
    shares = sum(target.share for target in targets)
    figures = []
    for target in targets:
        part = max(1, round(runs * target.share / shares))
        figures.append(run.fuzz(target, part, seed + adler32(target.name.encode()), scratch))
        if figures[-1].interrupted:
            break
    print(run.table(figures))
    for figure in figures:
        if figure.finding:
            print(run.tell(figure))
    if any(figure.finding for figure in figures):
        return 1
    return INTERRUPTED if figures[-1].interrupted else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
