"""Options that limit the resources of a program in the guest."""

import math
from typing import Any, Optional

import typer

from qga.client.program_options import Limits
from qga.ctl.values import Expected, parse_size, size

LEAST_CPUS = 0.01  # of what the agent accepts


def optional_size(text: Optional[str]) -> Optional[str]:
    return None if text is None else size(text)


def processors(number: Optional[float]) -> Optional[float]:
    if number is not None and not LEAST_CPUS <= number < math.inf:
        raise Expected(f"use a number of processors of at least {LEAST_CPUS}, such as 0.5")
    return number


def _size(name: str, what: str) -> Any:
    return typer.Option(
        None, name, metavar="SIZE", callback=optional_size, help=what, show_default=False
    )


def _count(name: str, what: str) -> Any:
    return typer.Option(None, name, metavar="N", min=1, help=what)


MEMORY = _size("--memory", "Memory of the program and everything that it started, such as 512M.")
PIDS = _count("--pids", "Number of their processes and threads.")
CPUS = typer.Option(
    None,
    "--cpus",
    metavar="NUMBER",
    callback=processors,
    help="Processors that they may use on average; 0.5 is half of one.",
)
CPU_SECONDS = _count("--cpu-seconds", "Seconds of processor time of each process.")
OPEN_FILES = _count("--open-files", "File descriptors of each process.")
FILE_SIZE = _size("--file-size", "Size of the largest file that a process may write.")
OUTPUT_SIZE = _size("--output-size", "Size of all output; a program that writes more is killed.")


def limits_of(
    memory: Optional[str],
    pids: Optional[int],
    cpus: Optional[float],
    cpu_seconds: Optional[int],
    open_files: Optional[int],
    file_size: Optional[str],
    output_size: Optional[str],
) -> Limits:
    """The limits of the options with these values."""
    return Limits(
        bytes_of(memory),
        cpus,
        pids,
        cpu_seconds,
        open_files,
        bytes_of(file_size),
        bytes_of(output_size),
    )


def bytes_of(text: Optional[str]) -> Optional[int]:
    return None if text is None else parse_size(text)
