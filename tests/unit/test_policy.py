"""Which commands a channel may call."""

from __future__ import annotations

import pytest

from qga import CommandNotFound
from qga.policy import Policy
from qga.registry import Command, command


class Handlers:
    @command(frozen=True)
    def guest_ping(self) -> None:
        """Allowed while frozen."""

    @command()
    def guest_exec(self) -> None:
        """Not allowed while frozen."""


def entry(name: str) -> Command:
    handler = getattr(Handlers(), name.replace("-", "_"))
    return Command(name, handler, handler.__qga_command__)


PING, EXEC = entry("guest-ping"), entry("guest-exec")


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [
        (Policy(), ["guest-ping", "guest-exec"]),
        (Policy(allow=["guest-ping"]), ["guest-ping"]),
        (Policy(block=["guest-ping"]), ["guest-exec"]),
        (Policy(allow=["guest-ping", "guest-exec"], block=["guest-exec"]), ["guest-ping"]),
        (Policy(allow=["guest-ping"], block=["guest-ping"]), []),
        (Policy(allow=["no-such-command"]), []),
    ],
)
def test_allow_first_and_block_on_top(policy: Policy, allowed: list[str]) -> None:
    assert [each.name for each in (PING, EXEC) if policy.allows(each, frozen=False)] == allowed
    for each in (PING, EXEC):
        if each.name in allowed:
            policy.check(each, frozen=False)
        else:
            with pytest.raises(CommandNotFound):
                policy.check(each, frozen=False)


def test_the_frozen_list_is_above_all() -> None:
    policy = Policy(allow=["guest-ping", "guest-exec"])
    assert policy.allows(PING, frozen=True)
    assert not policy.allows(EXEC, frozen=True)
    assert not Policy(block=["guest-ping"]).allows(PING, frozen=True)


def test_what_a_refused_command_is_told() -> None:
    with pytest.raises(CommandNotFound) as raised:
        Policy(block=["guest-exec"]).check(EXEC, frozen=False)
    assert raised.value.error_class == "CommandNotFound"
    assert raised.value.desc == ("Command guest-exec has been disabled: the command is not allowed")
