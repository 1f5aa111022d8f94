"""The limit on open files."""

from __future__ import annotations

import errno
import resource
from typing import NoReturn

import pytest

from qga.programs import open_files


def refuse(*_arguments: object) -> NoReturn:
    raise PermissionError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize(("call", "limit"), [("getrlimit", 1024), ("setrlimit", 77)])
def test_a_filter_that_refuses_the_call_does_not_stop_the_agent(
    monkeypatch: pytest.MonkeyPatch, call: str, limit: int
) -> None:
    monkeypatch.setattr(open_files, "inherited", None)
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (77, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    monkeypatch.setattr(resource, call, refuse)
    assert open_files.raise_limit() == limit
    assert open_files.inherited is None, "programs keep theirs"
