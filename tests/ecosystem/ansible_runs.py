"""Runs the real Ansible, with the collection as the wheel installs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from tests.guest.image import CHECKOUT

CALLBACKS = Path(__file__).parent / "callback"
IN_THE_WHEEL = ("ansible_collections", "commands", "qga", "pyproject.toml", "README.md", "LICENSE")

# The distribution's, which is the oldest that the collection supports on Debian, and the newest
# for this Python.
PROGRAMS = {"distribution": Path("/usr/bin"), "PyPI": Path(sys.executable).parent}

SETTINGS = {
    "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS),
    "ANSIBLE_STDOUT_CALLBACK": "results",
    "ANSIBLE_NOCOLOR": "1",
    "LC_ALL": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
}
# The guest's processor is emulated: its answers may take longer than a task waits by default.
IN_A_GUEST = {
    "ansible_connection": "qga.guest.qga",
    "ansible_qga_timeout": 60,
    "ansible_python_interpreter": "/usr/bin/python3",
}
HERE = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}


Task = dict[str, Any]


class Ran(NamedTuple):
    """A result of a task: `status` is ok, failed or unreachable."""

    host: str
    task: str
    status: str
    seconds: float
    result: dict[str, Any]


class Ansible:
    """One installation of Ansible. `site` is where the wheel was unpacked."""

    patience = 800.0
    """Seconds for one of its programs; a machine may be busy."""

    before: tuple[str, ...] = ()
    """A program that starts Ansible's."""

    def __init__(self, bin: Path, site: Path, folder: Path, env: dict[str, str]) -> None:
        self.bin = bin
        self.folder = folder
        self.env = {**os.environ, **env, **SETTINGS, "PYTHONPATH": str(site), "HOME": str(folder)}
        (folder / "ansible.cfg").touch()
        self.env["ANSIBLE_CONFIG"] = str(folder / "ansible.cfg")

    def run(self, program: str, *argv: str, check: bool = True) -> str:
        """What one of Ansible's programs prints; messages as well with `check=False`."""
        done = subprocess.run(
            [*self.before, str(self.bin / program), *argv],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=self.patience,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done.stdout if check else done.stdout + done.stderr

    def play(
        self,
        tasks: list[Task],
        hosts: dict[str, dict[str, Any]] | None = None,
        inventory: Path | None = None,
        **play: Any,
    ) -> list[Ran]:
        """The results of tasks on all hosts, which are given with their variables."""
        if inventory is None:
            inventory = self.folder / "hosts.yml"
            inventory.write_text(json.dumps({"all": {"hosts": hosts}}))
        playbook = self.folder / "play.yml"
        whole = {"hosts": "all", "gather_facts": False, **play, "tasks": tasks}
        playbook.write_text(json.dumps([whole]))
        return self.play_file(playbook, inventory)

    def play_file(self, playbook: Path, inventory: Path, *options: str) -> list[Ran]:
        """The results of the tasks of a playbook."""
        argv = ["-i", str(inventory), *options, str(playbook)]
        out = self.run("ansible-playbook", *argv, check=False)
        lines = [line for line in out.splitlines() if line.startswith("{")]
        assert lines, out
        return [Ran(**json.loads(line)) for line in lines]


def unpacked_wheel(folder: Path) -> Path:
    """Build the wheel, and unpack it as pip would."""
    source, site = folder / "source", folder / "site"
    source.mkdir()
    for name in IN_THE_WHEEL:
        if (CHECKOUT / name).is_dir():
            shutil.copytree(
                CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(CHECKOUT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    subprocess.run([*pip, str(folder), str(source)], check=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    return site
