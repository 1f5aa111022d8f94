"""What the wheel contains: every package, and the collection for Ansible in the same version."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import yaml

from qga.version import __version__

CHECKOUT = Path(__file__).parents[2]
COLLECTION = CHECKOUT / "ansible_collections/qga/guest"


def test_every_folder_with_modules_is_a_package() -> None:
    tomllib = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    modules = [*CHECKOUT.glob("qga/**/*.py"), *COLLECTION.glob("**/*.py")]
    folders = {module.parent.relative_to(CHECKOUT) for module in modules}
    expected = {".".join(folder.parts) for folder in folders}
    packages = set(project["tool"]["setuptools"]["packages"])
    assert packages == expected | {"qga.commands", "ansible_collections.qga.guest"}


def test_the_collection_has_the_version_of_qga() -> None:
    assert yaml.safe_load((COLLECTION / "galaxy.yml").read_text())["version"] == __version__
