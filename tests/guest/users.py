"""Users of the guest: their logins on terminals, and their passwords."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .vm import Guest

# Ready once the shell has printed its prompt; logs out when it is terminated.
TERMINAL = r"""
import os, pty, signal
from systemd.daemon import notify

def log_out(*_):
    os.write(terminal, b"exit\n")
    os.waitpid(login, 0)
    raise SystemExit

login, terminal = pty.fork()
if not login:
    os.execv("/bin/login", ["login", "-f", "root"])
signal.signal(signal.SIGTERM, log_out)
output = b""
while not output.endswith(b"# "):
    output += os.read(terminal, 4096)
notify("READY=1")
signal.pause()
"""


@contextmanager
def logged_in(guest: Guest) -> Iterator[None]:
    """Log root in on a terminal, with records as login(1) writes them."""
    guest.write_file("/run/terminal.py", TERMINAL)
    options = ["--unit=terminal", "--service-type=notify", "--collect", "--property=KillMode=mixed"]
    guest.run(["systemd-run", *options, "/usr/bin/python3", "/run/terminal.py"])
    try:
        yield
    finally:
        guest.run(["systemctl", "stop", "terminal"])
        # login(1) leaves it to others, such as the getty's service, to take its record back.
        guest.run(["/bin/sh", "-c", "[ ! -e /run/utmp ] || : >/run/utmp"])


@contextmanager
def logind(guest: Guest) -> Iterator[None]:
    """Run systemd-logind, whose own unit is masked."""
    folders = " ".join(f"/run/systemd/{name}" for name in ("inhibit", "seats", "sessions", "users"))
    guest.run(["/bin/sh", "-c", f"mkdir -p {folders}"])
    options = ["--unit=logind", "--service-type=dbus", "--property=BusName=org.freedesktop.login1"]
    guest.run(["systemd-run", *options, "--collect", "/lib/systemd/systemd-logind"])
    try:
        yield
    finally:
        guest.run(["systemctl", "stop", "logind"])


@contextmanager
def without_utmp(guest: Guest) -> Iterator[None]:
    """Remove utmp, as on systems that no longer have it."""
    guest.run(["mv", "/run/utmp", "/run/utmp.away"])
    try:
        yield
    finally:
        guest.run(["mv", "/run/utmp.away", "/run/utmp"])


@contextmanager
def greeter(guest: Guest) -> Iterator[None]:
    """A session that waits for a login, as display managers create one."""
    path = "/run/systemd/sessions/greeter"
    guest.write_file(path, "UID=1\nUSER=daemon\nCLASS=greeter\nREALTIME=1000000\n")
    try:
        yield
    finally:
        guest.run(["rm", path])


def stored_password(guest: Guest, user: str) -> str:
    """The user's password as /etc/shadow has it."""
    return guest.run(["getent", "shadow", user]).stdout.split(":")[1]


def crypt(guest: Guest, password: str, salt: str) -> str:
    """The hash of a password with this salt, for which a stored hash can be given."""
    script = "import crypt, sys; print(crypt.crypt(*sys.argv[1:]))"
    argv = ["/usr/bin/python3", "-W", "ignore", "-c", script, password, salt]
    return guest.run(argv).stdout.strip()
