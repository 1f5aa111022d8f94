"""Usage: dist_info.py DIRECTORY INSTALLER. Makes DIRECTORY/qga-VERSION.dist-info for a package.

By its entry points pytest, Testinfra and pyinfra find qga, as if pip had installed it. By its
extras `pip install 'qga[pyinfra]'` adds what an extra needs, and INSTALLER, the distribution's
package manager, is where pip refers those who want to remove qga. It names no programs and requires
nothing itself: that is the package's affair.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
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
    metadata += [f"Summary: {project['description']}", *extras(project["optional-dependencies"])]
    (folder / "METADATA").write_text("\n".join([*metadata, ""]))
    (folder / "INSTALLER").write_text(f"{sys.argv[2]}\n")
    groups = project["entry-points"].items()
    (folder / "entry_points.txt").write_text("\n".join(section(*group) for group in groups))


def extras(groups: dict[str, list[str]]) -> Iterator[str]:
    for name, requirements in groups.items():
        yield f"Provides-Extra: {name}"
        for requirement in requirements:
            package, _, marker = requirement.partition(";")
            condition = f"({marker.strip()}) and " if marker else ""
            yield f'Requires-Dist: {package.strip()}; {condition}extra == "{name}"'


def section(group: str, entries: dict[str, str]) -> str:
    return f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in entries.items())


if __name__ == "__main__":
    main()
