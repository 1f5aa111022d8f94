"""What TAB offers when guests give themselves hostile names, or none answers."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from qga.ctl.complete import LONGEST, MOST, SECONDS, fit_to_show
from tests.integration.client_agents import running
from tests.integration.qgactl_process import QGACTL, environment
from tests.integration.test_qgactl_hosts import listening

HOSTILE = ["\x1b[2Jx", "a\nb", "\u202egpj", "tab\t", "\x07", "nbsp\u00a0", "\ufffd"]


def complete(folder: Path, *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [*QGACTL, "--complete", *words],
        env={
            **environment(None),
            "XDG_CONFIG_HOME": str(folder),
            "QGA_HOST_ROOT": str(folder),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_names_that_a_terminal_would_act_on_are_left_out() -> None:
    assert list(fit_to_show([*HOSTILE, "web", "my guest", "$(reboot)"])) == [
        *("web", "my guest", "$(reboot)")
    ]
    assert list(fit_to_show(["x" * (LONGEST + 1), "y"])) == ["y"]
    assert len(list(fit_to_show(f"n{number}" for number in range(2 * MOST)))) == MOST


def test_files_of_a_guest(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    for name in ("one", "one;reboot", "one more", ".hidden", *HOSTILE[:2]):
        (there / name).touch()
    (there / "one.d").mkdir()
    with running("ours", tmp_path) as address:
        (tmp_path / "qgactl.toml").write_text(f'[guests]\nweb = "{address}"\n')
        assert complete(tmp_path, "paths", f"web:{there}/one") == (
            0,
            "".join(
                f"web:{there}/{name}\n" for name in ("one", "one more", "one.d/", "one;reboot")
            ),
            "",
        )
        assert complete(tmp_path, "paths", f"web:{there}/.")[1] == f"web:{there}/.hidden\n"
        assert complete(tmp_path, "paths", "we")[1] == "web:\n"


@pytest.mark.parametrize(
    "words", [["paths", "web:/etc/"], ["paths", "nosuch:/"], ["guests"], [], ["paths", "unix:/x:/"]]
)
def test_it_is_silent_when_something_is_wrong(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "qgactl.toml").write_text("[nonsense\n")
    assert complete(tmp_path, *words) == (0, "", "")


def test_a_guest_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    with listening(tmp_path / "mute") as path:
        (tmp_path / "qgactl.toml").write_text(f'[guests]\nweb = "unix:{path}"\n')
        start = time.monotonic()
        assert complete(tmp_path, "paths", "web:/etc/") == (0, "", "")
    assert SECONDS <= time.monotonic() - start < 30


def test_it_loads_no_library_of_the_command_line() -> None:
    code = (
        "import sys; import qga.ctl.complete; print('typer' in sys.modules, 'rich' in sys.modules)"
    )
    out = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert out == "False False\n"
