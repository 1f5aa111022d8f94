"""Write what is made from the interface: see the package's docstring."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from . import completions, interface, pages, qgactl_page, tables

PRINTED = {
    "commands": tables.commands_page,
    "arguments": tables.arguments_module,
    "standard": tables.standard_module,
}


def main() -> int:
    if len(sys.argv) != 2:
        print(
            "usage: python -m qga_docs FOLDER | commands | arguments | standard | top",
            file=sys.stderr,
        )
        return 2
    if sys.argv[1] == "top":
        from . import top  # needs rich, as qgactl does

        sys.stdout.write(top.svg())
        return 0
    if sys.argv[1] in PRINTED:
        sys.stdout.write(PRINTED[sys.argv[1]]())
        return 0
    write_files(Path(sys.argv[1]), date())
    return 0


def write_files(folder: Path, date: str) -> None:
    """Write everything that a package installs besides the code; `date` is for the manual."""
    for name, text in files(date).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def files(date: str) -> dict[str, str]:
    """What `write_files` writes, by the path in its folder."""
    made = {
        "qemu-ga.8": pages.qemu_ga(date),
        "qemu-ga.conf.5": pages.qemu_ga_conf(date),
        "qgactl.1": qgactl_page.qgactl(date),
        "qemu-ga.conf": tables.configuration(),
    }
    for program in (interface.qemu_ga(), interface.qgactl()):
        made[f"bash/{program.name}"] = completions.bash(program)
        made[f"zsh/_{program.name}"] = completions.zsh(program)
        made[f"fish/{program.name}.fish"] = completions.fish(program)
    return made


def date() -> str:
    """Today, or the day that reproducible builds ask for."""
    now = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    return time.strftime("%Y-%m-%d", time.gmtime(now))


if __name__ == "__main__":
    sys.exit(main())
