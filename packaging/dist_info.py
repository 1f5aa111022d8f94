"""Usage: dist_info.py DIRECTORY. Makes DIRECTORY/qga-VERSION.dist-info for qgactl's package.

By its entry points pytest, Testinfra and pyinfra find qga, as if pip had installed it. It names no
requirements and no programs, which are the package's affair.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from qga.version import __version__

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def main() -> None:
    tomllib = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    project = tomllib.loads(PROJECT.read_text())["project"]
    folder = Path(sys.argv[1]) / f"qga-{__version__}.dist-info"
    folder.mkdir(parents=True)
    metadata = ["Metadata-Version: 2.1", "Name: qga", f"Version: {__version__}"]
    (folder / "METADATA").write_text(
        "\n".join([*metadata, f"Summary: {project['description']}", ""])
    )
    groups = project["entry-points"].items()
    (folder / "entry_points.txt").write_text("\n".join(section(*group) for group in groups))


def section(group: str, entries: dict[str, str]) -> str:
    return f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in entries.items())


if __name__ == "__main__":
    main()
