"""How a program is started where rules say which may be.

The rules speak of real paths, and the program is started by its real path. No race changes what
that is, for nobody but root, the agent's user and the user it runs as may write anything on the
way there: otherwise it is refused (qga.trust). Nor can a name fool it: one file may be many
programs by the name that it is called by (busybox, systemctl as `poweroff`). So it is called by
its real path, unless the rules allow the very link that was asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from errno import ENOENT
from typing import TYPE_CHECKING

from qga import trust
from qga.errors import QgaError
from qga.policy import Rules, Verdict
from qga.spawn import Launch, candidates, variables_of

if TYPE_CHECKING:
    from pwd import struct_passwd

    from qga.config import ChannelConfig


def settings(config: ChannelConfig) -> Launch:
    """Everything but the program. Raises QgaError when there is no such user."""
    drop = config.exec_environment == "drop" or (
        config.exec_environment is None and config.exec_allow is not None
    )
    account = _account(config.exec_user) if config.exec_user else None
    return Launch(account=account, clean=drop)


def judge(
    rules: Rules, settings: Launch, name: str, arguments: Sequence[str], env: list[str] | None
) -> tuple[Launch, Verdict]:
    """What the rules say of a program, and how it is started. Raises OSError for none."""
    path = _find(name, settings, env)
    try:
        names = _names(path)
    except OSError:
        verdict = _judge(rules, os.path.abspath(path), arguments)
        if verdict.allowed:
            raise
        return settings, verdict  # and tell nothing of what is refused
    verdict = _judge(rules, names[-1], arguments)
    for known_as in names:
        allowed = _judge(rules, known_as, arguments)
        if allowed.allowed:
            verdict = _judge_trust(known_as, names[-1], settings, allowed)
            return settings._replace(name=known_as, executable=names[-1]), verdict
    return settings, verdict


def _find(name: str, settings: Launch, env: list[str] | None) -> str:
    """The first file that the name may stand for. Raises FileNotFoundError."""
    paths = [os.fsdecode(path) for path in candidates(name, variables_of(env, settings))]
    if "/" in name:
        return paths[0]
    for path in paths:
        if os.path.isfile(path):
            return path
    raise FileNotFoundError(ENOENT, os.strerror(ENOENT))


def _names(path: str) -> list[str]:
    """The path of the very link that was asked for, if it is one, and the real path."""
    fd = os.open(path, os.O_PATH)
    try:
        real = os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    link = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    return [real] if link == real else [link, real]


def _judge(rules: Rules, path: str, arguments: Sequence[str]) -> Verdict:
    subject = f"the program '{path}'"
    if any(rule.path.fullmatch(path) for rule in rules.patterns):
        subject += " with these arguments"  # which may hold secrets, and this is logged
    return rules.judge(subject, (rule.allows(path, arguments) for rule in rules.patterns))


def _judge_trust(known_as: str, real: str, settings: Launch, allowed: Verdict) -> Verdict:
    owners = [settings.account.pw_uid] if settings.account else []
    try:
        if trust.require(known_as, owners) == real:
            return allowed
        reason = f"'{known_as}' has just become another program"
    except trust.Untrusted as error:
        reason = f"'{known_as}' could be replaced by somebody else: {error}"
    return Verdict(False, reason, allowed.rule)


def _account(user: str) -> struct_passwd:
    from pwd import getpwnam

    try:
        return getpwnam(user)
    except KeyError:
        raise QgaError(f"the user '{user}' of [exec] user is unknown in this guest") from None
