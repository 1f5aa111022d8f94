"""Which commands a channel may call."""

from __future__ import annotations

import os
import re
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from qga import CommandNotFound
from qga.errors import Refused
from qga.plugin import registry
from qga.plugin.entry import Command
from qga.plugin.registry import command
from qga.policy.launch import ANYHOW, Wanted
from qga.policy.policy import Policy
from qga.programs.limits import Limits
from qga.programs.spawn import Launch
from qga.settings.config import ChannelConfig
from qga.settings.values import PROFILES
from tests.differences import differs

if TYPE_CHECKING:
    pass


class Handlers:
    @command(frozen=True)
    def guest_ping(self) -> None:
        """Allowed while frozen."""

    @command()
    def guest_exec(self) -> None:
        """Not allowed while frozen."""

    @command(access="file-read")
    def guest_file_open(self) -> None:
        """Allowed from the profile file-read on."""

    @command()
    def guest_set_user_password(self) -> None:
        """A way in."""

    @command()
    def guest_ssh_add_authorized_keys(self) -> None:
        """Another."""

    @command(like=("guest-exec",))
    def qga_connect(self) -> None:
        """Reaches services, some of which do as much."""

    @command(like=("guest-exec",))
    def qga_exec(self) -> None:
        """Does as much as guest-exec."""


def entry(name: str) -> Command:
    handler = getattr(Handlers(), name.replace("-", "_"))
    return Command(name, handler.__qga_command__, handler)


def policy(allow: Sequence[str] = (), block: Sequence[str] = (), **rules: Any) -> Policy:
    return Policy(
        ChannelConfig("main", "", "", allow_rpcs=tuple(allow), block_rpcs=tuple(block), **rules)
    )


PING, EXEC, OPEN, PASSWORD, ADD_KEYS = map(
    entry,
    (
        "guest-ping",
        "guest-exec",
        "guest-file-open",
        "guest-set-user-password",
        "guest-ssh-add-authorized-keys",
    ),
)
OUR_EXEC = entry("qga-exec")


def test_a_command_is_blocked_with_one_that_does_as_much() -> None:
    rules = policy(block=["guest-exec"])
    assert not rules.allows(OUR_EXEC, frozen=False)
    reason = rules.judge_command(OUR_EXEC).reason
    assert reason == "guest-exec is in [general] block-rpcs, and qga-exec can do the same"
    assert policy(block=["guest-ping"]).allows(OUR_EXEC, frozen=False)
    assert not policy(allow=["guest-exec"]).allows(OUR_EXEC, frozen=False)


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [
        (policy(), ["guest-ping", "guest-exec"]),
        (policy(allow=["guest-ping"]), ["guest-ping"]),
        (policy(block=["guest-ping"]), ["guest-exec"]),
        (policy(allow=["guest-ping", "guest-exec"], block=["guest-exec"]), ["guest-ping"]),
        (policy(allow=["guest-ping"], block=["guest-ping"]), []),
        (policy(allow=["no-such-command"]), []),
    ],
)
def test_allow_first_and_block_on_top(rules: Policy, allowed: list[str]) -> None:
    assert [each.name for each in (PING, EXEC) if rules.allows(each, frozen=False)] == allowed
    for each in (PING, EXEC):
        if each.name in allowed:
            rules.check(each, frozen=False)
        else:
            with pytest.raises(CommandNotFound):
                rules.check(each, frozen=False)


@differs("block-holds-while-frozen")
def test_the_frozen_list_is_above_all() -> None:
    rules = policy(allow=["guest-ping", "guest-exec"])
    assert rules.allows(PING, frozen=True)
    assert not rules.allows(EXEC, frozen=True)
    assert not policy(block=["guest-ping"]).allows(PING, frozen=True)


def test_the_error_of_a_blocked_command() -> None:
    with pytest.raises(CommandNotFound) as raised:
        policy(block=["guest-exec"]).check(EXEC, frozen=False)
    assert raised.value.error_class == "CommandNotFound"
    assert raised.value.desc == ("Command guest-exec has been disabled: the command is not allowed")


def test_the_profiles_are_the_words_of_access() -> None:
    words = re.search(r"Access = Literal\[(.*)\]", Path(registry.__file__).read_text())
    assert words is not None
    assert words[1] == ", ".join(f'"{profile}"' for profile in PROFILES)


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({}, []),
        ({"files_read": (), "files_write": ()}, ["[files]: guest-exec can run any program"]),
        ({"exec_allow": ()}, ["[exec]: any file can be written"]),
        (
            {"accounts_allow": ()},
            ["[accounts]: guest-exec can run any program", "[accounts]: any file can be written"],
        ),
        ({"accounts_allow": (), "profile": "file-read"}, []),
        ({"accounts_allow": (), "profile": "file-write"}, ["[accounts]: any file can be written"]),
        ({"files_read": (), "files_write": (), "block": ["guest-exec"]}, []),
        ({"files_read": (), "files_write": (), "exec_allow": ("/bin/df",)}, []),
    ],
)
def test_rules_that_can_be_got_round_are_reported(rules: dict[str, Any], told: list[str]) -> None:
    found = list(policy(**rules).loopholes([EXEC, OPEN]))
    assert [sentence.partition(";")[0] for sentence in found] == told


@pytest.mark.parametrize(
    ("rules", "way_in"),
    [
        ({"exec": (), "files": ()}, "guest-set-user-password"),
        ({"exec": (), "files": (), "block": ["guest-set-user-password"]}, "guest-ssh-add"),
        ({"exec": ()}, "guest-set-user-password"),
        ({"files": ()}, "guest-set-user-password"),
        ({"exec": (), "files": (), "accounts": ()}, None),
        ({"exec": (), "files": (), "profile": "file-write"}, None),
        (
            {
                "exec": (),
                "files": (),
                "block": ["guest-set-user-password", "guest-ssh-add-authorized-keys"],
            },
            None,
        ),
        ({}, None),
    ],
)
def test_an_account_is_a_way_round_the_other_rules(
    rules: dict[str, Any], way_in: str | None
) -> None:
    fields = {"exec": ("exec_allow",), "files": ("files_read", "files_write")}
    fields["accounts"] = ("accounts_allow",)
    given = {field: rules[key] for key in rules if key in fields for field in fields[key]}
    others = {key: value for key, value in rules.items() if key not in fields}
    found = policy(**given, **others).loopholes([EXEC, OPEN, PASSWORD, ADD_KEYS])
    told = [sentence for sentence in found if "[accounts] allow" in sentence]
    assert len(told) == (way_in is not None)
    assert all(f": {way_in}" in sentence for sentence in told)


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"exec_allow": ()}, True),
        ({"exec_allow": (), "connect_allow": ()}, False),
        ({"exec_allow": (), "profile": "file-write"}, False),
        ({"exec_allow": (), "block": ["guest-exec"]}, False),
        ({"connect_allow": ()}, False),
        ({}, False),
    ],
)
def test_a_service_is_a_way_round_the_other_rules(rules: dict[str, Any], told: bool) -> None:
    found = list(policy(**rules).loopholes([entry("qga-connect")]))
    text = "[exec]: qga-connect can reach every service in the guest; set [connect] allow"
    assert found == ([text] if told else [])


SETTINGS: dict[str, Any] = {
    "exec_allow": ("/bin/true",),
    "exec_user": "nobody",
    "exec_users": ("nobody",),
    "exec_environment": "drop",
    "exec_terminal": False,
    "exec_timeout": 5,
    **{f"exec_{name}": 5 for name in Limits._fields},
}
WISHES: dict[str, Any] = {
    "directory": "/",
    "terminal": True,
    "user": "nobody",
    "group": "nogroup",
    "timeout": 5.0,
    "limits": Limits(memory=1 << 20),
}


def outcome(rules: Policy, wanted: Wanted | None = None) -> object:
    try:
        return rules.program("/bin/echo", ["x"], None, wanted)
    except Refused as error:
        return str(error)


def test_without_settings_any_program_starts_as_asked_for() -> None:
    assert SETTINGS.keys() == {key for key in ChannelConfig._fields if key.startswith("exec_")}
    assert outcome(policy()) == outcome(policy(), ANYHOW) == Launch("/bin/echo")


@pytest.mark.parametrize("key", sorted(SETTINGS.keys() - {"exec_terminal"}))
def test_each_setting_about_programs_has_an_effect(key: str) -> None:
    assert outcome(policy(**{key: SETTINGS[key]})) != Launch("/bin/echo")


def test_without_terminals_none_is_given() -> None:
    refused = outcome(policy(exec_terminal=False), Wanted(terminal=True))
    assert "gets no terminal" in str(refused)


@pytest.mark.parametrize("key", sorted(WISHES.keys() - {"terminal"}))
def test_each_wish_about_a_program_has_an_effect(key: str) -> None:
    assert WISHES.keys() == set(Wanted._fields)
    assert outcome(policy(), Wanted(**{key: WISHES[key]})) != Launch("/bin/echo")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("path", ["/ab" * 5_000_000, "/ab/.." * 5_000_000, "/" + "a" * 15_000_000])
def test_a_path_that_no_kernel_takes_is_refused_without_a_look(path: str) -> None:
    """Its components would take gigabytes, and each of them a look at the disk."""
    rules = policy(
        files_read=("/ab/**",), files_write=(), exec_allow=("/ab/**",), connect_allow=("unix:/ab/",)
    )
    tracemalloc.start()
    try:
        for refused in (
            lambda: rules.open_file(path, os.O_RDONLY),
            lambda: rules.socket(path),
            lambda: rules.program(path, [], None),
        ):
            with pytest.raises(Refused):
                refused()
        assert not rules.judge_file(path, os.O_RDONLY).allowed
        assert tracemalloc.get_traced_memory()[1] < 12 * len(path)
    finally:
        tracemalloc.stop()


def test_a_variable_that_no_kernel_takes_is_not_searched(tmp_path: Path) -> None:
    (tmp_path / "tool").touch(mode=0o755)
    rules = policy(exec_allow=(f"{tmp_path}/*",), exec_environment="keep")
    assert rules.program("tool", [], [f"PATH=/none:{tmp_path}"]).executable
    with pytest.raises(Refused):
        rules.program("tool", [], [f"PATH={'/none:' * 1_000_000}{tmp_path}"])


def test_links_without_end_lead_nowhere(tmp_path: Path) -> None:
    """A path that the kernel gives up at its first component may go on for ever after that."""
    (tmp_path / "start").symlink_to("missing/../link0")
    for number in range(2000):
        (tmp_path / f"link{number}").symlink_to(f"link{number + 1}")
    rules = policy(files_read=(f"{tmp_path}/link*",), files_write=())
    with pytest.raises(Refused):
        rules.open_file(f"{tmp_path}/start", os.O_RDONLY)


def test_the_log_has_the_reason_if_no_path_can_be_judged(tmp_path: Path) -> None:
    """A pattern matches the name, and the host gets no error of a place that it may not see."""
    (tmp_path / "loop").symlink_to("loop")
    rules = policy(files_read=(f"{tmp_path}/",), files_write=())
    for name, reason in (("loop", "a loop of links"), ("a" * 5000, "File name too long")):
        with pytest.raises(Refused) as refused:
            rules.open_file(f"{tmp_path}/{name}", os.O_RDONLY)
        assert reason in refused.value.detail
        assert reason not in refused.value.desc
        assert reason in rules.judge_file(f"{tmp_path}/{name}", os.O_RDONLY).detail
