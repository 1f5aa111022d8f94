"""The drop-in for guests whose host may only look lists just the commands that look."""

from __future__ import annotations

import runpy

from tests.guest.image import CHECKOUT

HARDENED = runpy.run_path(str(CHECKOUT / "packaging/hardened.py"))
TEXT = HARDENED["DROP_IN"].read_text()


def test_the_list_is_current() -> None:
    assert HARDENED["current"](TEXT) == TEXT, "run python packaging/hardened.py"


def test_the_list_is_of_commands_that_only_look() -> None:
    commands = HARDENED["audit_commands"]()
    assert ",".join(commands) in TEXT
    assert {"guest-ping", "guest-sync-delimited", "guest-get-fsinfo"} <= set(commands)
    assert not {"guest-exec", "guest-file-read", "guest-fsfreeze-freeze"} & set(commands)
