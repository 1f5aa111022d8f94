"""The authorized ssh keys of users.

Users control their home directories. So a helper process does everything there with the user's own
uid and groups, and a symbolic link gives access only to what the user could access anyway.
"""

from __future__ import annotations

import os
import pwd
import sys
from typing import TYPE_CHECKING, Any

from qga import Caller, CommandGroup, QgaError, command
from qga.programs.run import run
from qga.records import TypedDict

if TYPE_CHECKING:
    from qga.policy.policy import Policy
    from qga.policy.rules import Verdict

_HELPER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_authorized_keys.py")
_TIMEOUT = 30.0  # seconds; a home may be on the network
_MAX_OUTPUT = 16 * 1024 * 1024 + 64 * 1024  # more than MAX_FILE of the helper


class GuestAuthorizedKeys(TypedDict):
    keys: list[str]


def _may_change(policy: Policy, given: dict[str, Any]) -> Verdict:
    return policy.judge_account(given["username"])


class Ssh(CommandGroup):
    """Authorized ssh keys."""

    @command(access="unrestricted", blocking=True, changes=False)
    def guest_ssh_get_authorized_keys(self, username: str) -> GuestAuthorizedKeys:
        """List the keys in a user's ~/.ssh/authorized_keys, without comments.

        username: the name of the account.
        """
        return {"keys": _ask_helper(username, "get").split("\n")[:-1]}

    @command(access="unrestricted", blocking=True, secret=("keys",), verdict=_may_change)
    def guest_ssh_add_authorized_keys(
        self, username: str, keys: list[str], reset: bool = False, *, caller: Caller
    ) -> None:
        """Add keys to a user's ~/.ssh/authorized_keys; keys that are in it already are ignored.

        username: the name of the account.
        keys: lines of the file.
        reset: whether to remove all other keys.
        """
        caller.policy.check_account(username)
        _ask_helper(username, "reset" if reset else "add", keys)

    @command(access="unrestricted", blocking=True, secret=("keys",), verdict=_may_change)
    def guest_ssh_remove_authorized_keys(
        self, username: str, keys: list[str], *, caller: Caller
    ) -> None:
        """Remove keys from a user's ~/.ssh/authorized_keys; keys that are not in it are ignored.

        username: the name of the account.
        keys: lines of the file.
        """
        caller.policy.check_account(username)
        _ask_helper(username, "remove", keys)


def _ask_helper(username: str, action: str, keys: list[str] | None = None) -> str:
    for key in keys or ():
        if "\n" in key or "\0" in key or key.startswith("#"):
            raise QgaError(f"invalid OpenSSH public key: '{key}'")
    try:
        account = pwd.getpwnam(username)
    except (KeyError, ValueError):
        raise QgaError(f"failed to lookup user '{username}': Success") from None
    lines = "".join(f"{key}\n" for key in keys or ())
    argv = [sys.executable, "-ISXutf8", *_helper(), action, account.pw_name, account.pw_dir]
    try:
        ended = run(argv, _TIMEOUT, lines.encode(), _MAX_OUTPUT, only_looks=action == "get")
    except TimeoutError:
        raise QgaError(f"no answer from '{account.pw_dir}/.ssh' within {_TIMEOUT:.0f} s") from None
    if ended.status:
        raise QgaError(
            ended.output.strip() or f"the helper for ssh keys exited with {ended.status}"
        )
    return ended.output


def _helper() -> list[str]:
    """Python's arguments: the helper's file, or its text if that is in an archive (make pyz)."""
    if os.path.exists(_HELPER):
        return [_HELPER]
    archive: Any = __spec__.loader
    return ["-c", archive.get_source("qga.commands._authorized_keys")]
