"""Runs the agent as in a Python built with an older C library or older kernel headers:

    old_python.py NAME... -- python -m qga ARGUMENT...

without the attributes of these names, in this very process.
"""

from __future__ import annotations

import _socket
import os
import runpy
import select
import signal
import socket
import sys
from types import ModuleType

MODULES: tuple[ModuleType, ...] = (os, signal, select, socket, _socket)


def main(arguments: list[str]) -> None:
    end = arguments.index("--")
    for name in arguments[:end]:
        for module in MODULES:
            vars(module).pop(name, None)
    _python, _option, module_name, *sys.argv[1:] = arguments[end + 1 :]
    runpy.run_module(module_name, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    sys.path[0] = os.getcwd()  # as `python -m` has it
    main(sys.argv[1:])
