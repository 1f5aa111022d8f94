#!/usr/bin/env python3
"""In the guest: wait for the host, send it one message and exit.

guest_message.py org.example.message 'The backup is done.'
"""

import sys

from qga import ports


def main() -> None:
    name, message = sys.argv[1:]
    with ports.open_port(name) as port:
        port.wait_for_host()
        port.write(f"{message}\n".encode())


if __name__ == "__main__":
    main()
