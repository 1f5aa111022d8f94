"""TCP ports for servers that cannot choose one themselves."""

from __future__ import annotations

import random
import socket

# Below those that Linux gives to connections and to who asks for any port: one of them would be
# taken by another program before the server listens.
PORTS = range(20_000, 32_768)


def free_port() -> int:
    while True:
        number = random.choice(PORTS)
        try:
            socket.create_server(("127.0.0.1", number)).close()
        except OSError:  # somebody listens there
            continue
        return number
