"""Programs of another architecture, run by QEMU's user emulation in a user namespace.

Linux 6.7 and later gives each user namespace formats of executables of its own (binfmt_misc), so
that the machine's are left alone. The emulator is taken from its package without installing that,
since the installation would register it with the machine.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Literal

from tests.guest import building

# The emulator's name, and e_machine and byte order of the architecture's ELF headers.
EMULATORS: dict[str, tuple[str, int, Literal["little", "big"]]] = {
    "arm64": ("qemu-aarch64", 183, "little"),
    "s390x": ("qemu-s390x", 22, "big"),
}
# O, C, F: the emulator is opened here, and keeps the credentials of what it runs.
REGISTER = """\
read -r _
mount -t binfmt_misc none "$1"
printf %s "$2" >"$1/register"
shift 2
exec "$@"
"""


def run(arch: str, argv: list[str]) -> None:
    """Run a program that starts programs of another architecture, as root of a namespace."""
    entry = f":{arch}:M::{magic(arch)}:{emulator(arch)}:OCF"
    with tempfile.TemporaryDirectory(prefix="qga-foreign-") as folder:
        register = ["sh", "-ec", REGISTER, "sh", folder, entry]
        process = subprocess.Popen(
            ["unshare", "--user", "--mount", *register, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **building.ENVIRONMENT},
            text=True,
        )
        map_users(process.pid)
        output, _ = process.communicate("\n")
        if process.returncode != 0:
            tail = "\n".join(output.splitlines()[-20:])
            raise building.CannotBuildError(f"{argv[0]} for {arch} failed:\n{tail}")


def map_users(pid: int) -> None:
    """Make the users of a process's new namespace those of this one."""
    ours = os.readlink("/proc/self/ns/user")
    while os.readlink(f"/proc/{pid}/ns/user") == ours:
        time.sleep(0.01)
    for kind in ("uid_map", "gid_map"):
        Path(f"/proc/{pid}/{kind}").write_text("0 0 65536\n")


def magic(arch: str) -> str:
    """What an executable begins with, and a mask of the bits that matter, for binfmt_misc."""
    _, machine, order = EMULATORS[arch]
    executable, code = (number.to_bytes(2, order) for number in (2, machine))
    head = b"\x7fELF\2" + (b"\1" if order == "little" else b"\2") + b"\1" + bytes(9)
    # A position-independent executable has the type 3 in place of 2.
    type_mask = (0xFFFE).to_bytes(2, order)
    mask = b"\xff" * 7 + bytes(9) + type_mask + b"\xff\xff"
    parts = (head + executable + code, mask)
    return ":".join("".join(f"\\x{byte:02x}" for byte in part) for part in parts)


def emulator(arch: str) -> Path:
    """The statically linked emulator, from Debian's package."""
    folder = building.CACHE / "qemu-user-static"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=building.CACHE, prefix="building-") as work:
            building.run(["sh", "-ec", f"cd {work} && apt-get download qemu-user-static"])
            [package] = Path(work).glob("*.deb")
            building.run(["dpkg-deb", "--extract", str(package), f"{work}/tree"])
            (Path(work) / "tree").rename(folder)
    return folder / "usr/bin" / f"{EMULATORS[arch][0]}-static"
