#!/usr/bin/env python3
"""On the host: print what a program in the guest writes to a data port, until QEMU closes it.

host_print.py /run/vm/greetings.sock

It needs nothing of qga: the port is a unix socket, and its bytes are raw.
"""

import socket
import sys


def main() -> None:
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(sys.argv[1])
        with link.makefile(encoding="utf-8", errors="backslashreplace") as lines:
            for line in lines:
                print(line, end="", flush=True)


if __name__ == "__main__":
    main()
