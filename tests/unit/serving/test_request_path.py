"""The path of a request in docs/architecture.md is the way that a request takes."""

from __future__ import annotations

import json
import re
import socket
import sys
from pathlib import Path
from types import FrameType

from qga.agent import Agent
from qga.policy.caller import Caller
from qga.policy.policy import Policy
from qga.service.log import Log
from qga.serving.session import Session
from qga.settings.config import ChannelConfig, Config

ROOT = Path(__file__).parents[3]
_PAGE = (ROOT / "docs/architecture.md").read_text()
WALK = re.findall(
    r"`((?:\w+\.)+\w+)`", _PAGE.partition("## The path of a request")[2].partition("\n## ")[0]
)


class Calls:
    """The functions of qga that were called, by first call, as `room.module.Class.function`."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}

    def note(self, frame: FrameType, event: str, _argument: object) -> None:
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith("qga."):
            # Before Python 3.11 a code object does not know its class.
            owner = frame.f_locals.get("self")
            classes = type(owner).__mro__ if owner is not None else ()
            function = frame.f_code.co_name
            name = next((f"{each.__name__}." for each in classes if function in vars(each)), "")
            self.names[f"{module}.{name}{function}".removeprefix("qga.")] = None


def test_a_request_takes_the_walk_that_the_page_describes(tmp_path: Path) -> None:
    main = ChannelConfig(method="unix-listen", path=str(tmp_path / "s"))
    agent = Agent(Config((main,), statedir=str(tmp_path), command_timeout=60), Log())
    here, there = socket.socketpair()
    calls = Calls()
    with here, there:
        there.setblocking(False)
        session = Session(
            agent,
            there.fileno(),
            Caller("main", Policy()),
            lambda _session, _error: agent.loop.stop(),
            short_read_empties=True,
            outlives_peer=False,
        )
        session.start()
        arguments = {"path": "/etc/passwd"}
        request = {"execute": "qga-file-checksum", "arguments": arguments}
        here.sendall(json.dumps(request).encode() + b"\n" + b'{"execute": "guest-ping"}\n')
        agent.loop.call_later(0.5, lambda: here.shutdown(socket.SHUT_WR))
        sys.setprofile(calls.note)
        try:
            agent.loop.run()
        finally:
            sys.setprofile(None)
        assert here.recv(4096).count(b"return") == 2
    agent.close()
    assert len(WALK) > 12
    missing = [
        step
        for step in WALK
        if not any(name == step or name.startswith(f"{step}.") for name in calls.names)
    ]
    assert missing == []
