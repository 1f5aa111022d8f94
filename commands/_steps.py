"""Steps of a command, each with a report; a failed step does not stop the others."""

from __future__ import annotations

from typing import Callable, Literal

from qga import QgaError
from qga.programs.run import run
from qga.records import TypedDict

MOST_OUTPUT = 500
"""Characters of a program's output in a report."""

QgaStepResult = Literal["done", "failed", "not-applicable"]


class QgaStep(TypedDict):
    name: str
    result: QgaStepResult
    text: str


class NotApplicable(Exception):
    """The guest has nothing that the step is for; the text says what it looked for."""


def step(name: str, act: Callable[[], str]) -> QgaStep:
    """Carry out a step. `act` returns what it did, or raises NotApplicable, QgaError or OSError."""
    try:
        return {"name": name, "result": "done", "text": act()}
    except NotApplicable as reason:
        return {"name": name, "result": "not-applicable", "text": str(reason)}
    except (QgaError, OSError) as error:
        return {"name": name, "result": "failed", "text": reason_of(error)}


def reason_of(error: QgaError | OSError) -> str:
    if isinstance(error, QgaError) or not error.strerror:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def output_of(argv: list[str], timeout: float) -> str:
    """The output of a program. Raises QgaError if it fails or exceeds `timeout` seconds."""
    try:
        # Its output is read here, and goes to hosts in any country.
        ended = run(argv, timeout, variables={"LC_ALL": "C"})
    except TimeoutError:
        raise QgaError(f"{argv[0]} took longer than {timeout:.0f} s") from None
    except OSError as error:
        raise QgaError(f"{argv[0]}: {error.strerror}") from error
    if ended.status:
        reason = " ".join(ended.output.split())[:MOST_OUTPUT]
        raise QgaError(f"'{' '.join(argv)}' failed with status {ended.status}: {reason}")
    return ended.output
