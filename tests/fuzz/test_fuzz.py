"""The kept corpus without the fuzzer, a short run with it, and faults that must be found."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from qga.errors import QgaError
from qga.plugin.signature import Signature
from qga.settings import keyfile
from qga.wire.decoder import Decoder
from tests.fuzz import base64text
from tests.fuzz.__main__ import ROOT, main
from tests.fuzz.targets import TARGETS

RUNS = 10_000

needs_atheris = pytest.mark.skipif(
    find_spec("atheris") is None, reason="atheris has no wheel for this Python"
)


def replay(name: str) -> None:
    inputs = sorted(TARGETS[name].corpus.iterdir())
    assert inputs
    test_one = TARGETS[name].load()
    for path in inputs:
        test_one(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_corpus_holds_no_finding(name: str) -> None:
    replay(name)


def keeps_no_pieces(decoder: Decoder, data: bytes, receive: Any = Decoder.receive) -> Any:
    return receive(Decoder(), data)


def refuses_nothing(signature: Signature, given: dict[str, Any]) -> dict[str, Any]:
    return given


def refuses_all(signature: Signature, given: dict[str, Any]) -> dict[str, Any]:
    raise QgaError("no")


@pytest.mark.parametrize(
    ("name", "owner", "attribute", "wrong"),
    [
        ("decoder", Decoder, "receive", keeps_no_pieces),
        ("decoder", Decoder, "receive", lambda decoder, data: []),
        ("commands", Signature, "bind", refuses_nothing),
        ("commands", Signature, "bind", refuses_all),
        ("config", keyfile, "encode", lambda text: text),
        ("base64text", base64text, "decode_base64", lambda text: b""),
        ("system", import_module("qga.commands._mounts"), "decode", os.fsdecode),
    ],
)
def test_a_fault_in_the_product_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, name: str, owner: Any, attribute: str, wrong: Any
) -> None:
    monkeypatch.setattr(owner, attribute, wrong)
    with pytest.raises(Exception):  # noqa: B017
        replay(name)


def fuzz(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--seed=1", *options],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_atheris
def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    ended = fuzz(f"--runs={RUNS}", f"--scratch={tmp_path}")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.split()[-3:] == ["in", "all", str(RUNS)]


PLANTED = """
import sys
sys.path.insert(0, {root!r})
from tests.fuzz import base64text

def test_one(data):
    assert b"!" not in data

base64text.test_one = test_one
"""


@needs_atheris
def test_a_finding_is_kept_and_can_be_seen_again(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(PLANTED.format(root=str(ROOT)))
    how = {"PYTHONPATH": str(tmp_path)}
    ended = fuzz("base64text", f"--runs={RUNS}", f"--scratch={tmp_path}", **how)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    (finding,) = (tmp_path / "findings").iterdir()
    assert b"!" in finding.read_bytes()
    assert f"base64text --replay {finding}" in ended.stdout
    again = fuzz("base64text", "--replay", str(finding), **how)
    assert again.returncode == 1
    assert "AssertionError" in again.stderr


def test_a_target_that_there_is_not_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["nonsense"])
    assert "there is no target nonsense; use decoder," in capsys.readouterr().err
