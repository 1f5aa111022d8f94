"""The environment that programs inherit from the agent."""

from __future__ import annotations

import os
import pwd
from typing import NoReturn

import pytest

from qga.programs import spawn


@pytest.fixture(autouse=True)
def service(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a service, which lacks what a login would add."""
    monkeypatch.setattr(spawn, "_of_the_agent", {})
    for name in list(os.environ):
        monkeypatch.delenv(name)
    monkeypatch.setenv("INVOCATION_ID", "0123")
    monkeypatch.setenv("LANG", "C.UTF-8")


def test_a_service_s_own_variables_are_left_out_and_a_login_s_added() -> None:
    name = pwd.getpwuid(os.geteuid()).pw_name.encode()
    found = dict(spawn.own_environment())
    found.pop(b"PYTEST_CURRENT_TEST")
    assert found.pop(b"PATH").endswith(b"/bin")
    assert found.pop(b"HOME").startswith(b"/")
    assert found == {b"LANG": b"C.UTF-8", b"USER": name, b"LOGNAME": name}


def test_it_stays_as_it_was_for_the_first_program(monkeypatch: pytest.MonkeyPatch) -> None:
    first = dict(spawn.own_environment())
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    assert spawn.own_environment() == first


def test_a_user_who_could_not_be_looked_up_is_looked_up_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_uid: int) -> NoReturn:
        raise KeyError

    with monkeypatch.context() as patch:
        patch.setattr(pwd, "getpwuid", fail)
        assert b"HOME" not in spawn.own_environment()
    assert b"HOME" in spawn.own_environment()
