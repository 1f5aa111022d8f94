"""Boot a guest for a person to play with: see the package's docstring."""

from __future__ import annotations

import signal
import sys

from .image import CannotBuildError
from .vm import DATA_PORTS, ORIGINAL_PORT, SPARE_PORT, Guest, GuestError


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Guest() as guest:
            print(f"agent under test   {guest.channel_path()}")
            print(f"original agent     {guest.channel_path(ORIGINAL_PORT)} (in use here)")
            print(f"spare port         {guest.channel_path(SPARE_PORT)} (not plugged in)")
            for port in DATA_PORTS:
                print(f"{port.name}     {guest.channel_path(port)}")
            print(f"ISA serial, ttyS1  {guest.isa_serial_path}")
            print(f"console's log      {guest.console_log}")
            print("Ctrl-C ends the guest.", flush=True)
            guest.wait()
    except KeyboardInterrupt:
        return 0
    except (CannotBuildError, GuestError) as error:
        print(f"guest: {error}", file=sys.stderr)
        return 1
    print("guest: QEMU has ended by itself", file=sys.stderr)
    return 1


sys.exit(main())
