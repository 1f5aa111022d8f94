"""The collection by itself: built for Galaxy, its documentation, and Ansible's checks of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from qga.version import __version__
from tests.guest.image import CHECKOUT

from .ansible_runs import PROGRAMS, Ansible

pytestmark = pytest.mark.timeout(900)

COLLECTION = CHECKOUT / "ansible_collections/qga/guest"
PLUGINS = {
    "connection": ["qga.guest.qga"],
    "inventory": ["qga.guest.guests"],
    "module": ["qga.guest.freeze", "qga.guest.snapshot", "qga.guest.thaw"],
}
# Those that download nothing.
CHECKS = (
    *("action-plugin-docs", "compile", "empty-init", "ignores", "line-endings", "no-assert"),
    *("no-get-exception", "no-illegal-filenames", "no-smart-quotes", "replace-urlopen", "shebang"),
    *("symlinks", "use-argspec-type-path", "use-compat-six"),
)


@pytest.fixture(params=list(PROGRAMS))
def ansible(request: pytest.FixtureRequest, site: Path, tmp_path: Path) -> Ansible:
    return Ansible(PROGRAMS[request.param], site, tmp_path, {})


def test_documentation(ansible: Ansible) -> None:
    for kind, names in PLUGINS.items():
        listed = ansible.run("ansible-doc", "--type", kind, "--list", "qga.guest")
        assert [line.split()[0] for line in listed.splitlines()] == names
        for name in names:
            assert "qga" in ansible.run("ansible-doc", "--type", kind, name)


def test_built_for_galaxy(ansible: Ansible, tmp_path: Path) -> None:
    """What is built can be installed, and is complete."""
    source, installed = tmp_path / "source", tmp_path / "installed"
    shutil.copytree(COLLECTION, source, ignore=shutil.ignore_patterns("__pycache__"))
    ansible.run("ansible-galaxy", "collection", "build", str(source))
    archive = tmp_path / f"qga-guest-{__version__}.tar.gz"
    with tarfile.open(archive) as built:
        names = {Path(name) for name in built.getnames()}
    assert {path.relative_to(source) for path in source.rglob("*.py")} <= names
    ansible.run(
        "ansible-galaxy", "collection", "install", "--force", "-p", str(installed), str(archive)
    )
    ansible.env["ANSIBLE_COLLECTIONS_PATH"] = str(installed)
    del ansible.env["PYTHONPATH"]
    shown = ansible.run("ansible-doc", "--type", "module", "qga.guest.freeze")
    assert str(installed) in shown


def test_without_the_library_it_says_what_is_missing(tmp_path: Path) -> None:
    ansible = Ansible(PROGRAMS["distribution"], tmp_path, tmp_path, {})
    shutil.copytree(COLLECTION, tmp_path / "ansible_collections/qga/guest")
    host = {"ansible_connection": "qga.guest.qga"}
    (ran,) = ansible.play([{"raw": "true"}], {"web": host})
    assert ran.status == "unreachable"
    assert "No module named 'qga': install qga for /usr/bin/python3" in ran.result["msg"]
    freeze = {"qga.guest.thaw": {"guest": "web"}, "connection": "local"}
    (ran,) = ansible.play([freeze], {"web": {"ansible_python_interpreter": "/usr/bin/python3"}})
    assert ran.status == "failed"
    assert "Failed to import the required Python library (qga)" in ran.result["msg"]


def test_sanity(tmp_path: Path) -> None:
    place = tmp_path / "ansible_collections/qga/guest"
    shutil.copytree(COLLECTION, place, ignore=shutil.ignore_patterns("__pycache__"))
    ansible = Ansible(PROGRAMS["PyPI"], tmp_path, tmp_path, {})
    options = ["--color", "no", "--python", "{}.{}".format(*sys.version_info)]
    options += [word for check in CHECKS for word in ("--test", check)]
    done = subprocess.run(
        [str(ansible.bin / "ansible-test"), "sanity", *options],
        cwd=place,
        env=ansible.env,
        capture_output=True,
        text=True,
        timeout=ansible.patience,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
