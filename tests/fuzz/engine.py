"""One target under libFuzzer, by way of atheris: `python -m tests.fuzz.engine TARGET FLAG...`.

A process of its own, for libFuzzer ends the one that it runs in.
"""

from __future__ import annotations

import sys

import atheris

from tests.fuzz.targets import TARGETS


def main(name: str, *flags: str) -> None:
    target = TARGETS[name]
    with atheris.instrument_imports(include=["qga"]):
        test_one = target.load()
    again = f"{sys.executable} -m {__spec__.name} {name}"  # libFuzzer runs it with sh to merge
    atheris.Setup([again, *flags], test_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
