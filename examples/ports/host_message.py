#!/usr/bin/env python3
"""On the host: wait for one message from the guest, print it and exit.

host_message.py /run/vm/message.sock
"""

import socket
import sys


def main() -> None:
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(sys.argv[1])
        with link.makefile(encoding="utf-8", errors="backslashreplace") as lines:
            print(lines.readline(), end="")


if __name__ == "__main__":
    main()
