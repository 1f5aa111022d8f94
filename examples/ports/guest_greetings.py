#!/usr/bin/env python3
"""In the guest: greet the host once a second while it is connected.

guest_greetings.py org.example.greetings
"""

import itertools
import sys
import time

from qga import ports


def main() -> None:
    with ports.open_port(sys.argv[1]) as port:
        for number in itertools.count(1):
            port.wait_for_host()
            try:
                port.write(f"Hello, host! This is greeting {number}.\n".encode())
            except BrokenPipeError:  # the host has just disconnected
                continue
            time.sleep(1)


if __name__ == "__main__":
    main()
