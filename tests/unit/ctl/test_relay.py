"""How long a program's relay bears with a guest."""

from __future__ import annotations

import math
import time
from typing import cast

import pytest

from qga.client.agent import GuestAgent
from qga.client.errors import AgentTimeout
from qga.client.programs import Output, Program
from qga.ctl import relay
from qga.ctl.relay import Relay, Signals


class Silent(Program):
    """A program whose guest does not answer; `polls` counts the attempts."""

    polls = 0

    def poll(self) -> Output:
        self.polls += 1
        raise AgentTimeout("unix:x", "qga-exec-read", 0.0, "no answer")


def test_a_silent_guest_is_given_up_in_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(relay, "SILENCE", 0.3)
    program = Silent(cast(GuestAgent, None), 7)
    with Signals() as signals:
        passing = Relay(program, signals, None, print, print, timeout=math.inf)
        start = time.monotonic()
        with pytest.raises(AgentTimeout, match="no answer"):
            passing.run()
    assert 0.3 <= time.monotonic() - start < 5
    assert program.polls > 2
    assert capsys.readouterr().err.count("the guest does not answer") == 1
