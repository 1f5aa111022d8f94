"""Starting programs under rules.

Rules contain real paths, and a program is started by its real path. No race can change what that
path refers to: a program is refused if anyone but root, the agent's user and the user that it runs
as can write to any part of its path (qga.settings.trust). Some files act as many programs by the
name that they are called by (busybox, systemctl as `poweroff`). So a program is called by its real
path, unless the rules allow the symbolic link that was requested.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from errno import EISDIR
from typing import TYPE_CHECKING, Optional

from qga.errors import QgaError
from qga.policy import opening
from qga.policy.rules import Rules, Setting, Verdict
from qga.programs.limits import NO_LIMITS, Limits, lower, stricter
from qga.programs.spawn import Launch, candidates, variables_of
from qga.records import NamedTuple
from qga.settings import trust
from qga.settings.patterns import LONGEST_ARGUMENT

if TYPE_CHECKING:
    from pwd import struct_passwd

    from qga.programs.accounts import Identity
    from qga.settings.config import ChannelConfig


class Wanted(NamedTuple):
    """How a request wants a program to run.

    directory: its working directory; None for the agent's.
    terminal: whether it gets a terminal.
    user, group: by name or number; None for those of the configuration.
    timeout: seconds after which it is ended.
    limits: the resources that it may use.
    """

    directory: Optional[str] = None
    terminal: bool = False
    user: Optional[str] = None
    group: Optional[str] = None
    timeout: Optional[float] = None
    limits: Limits = NO_LIMITS


ANYHOW = Wanted()


def settings(config: ChannelConfig, users: Rules | None, wanted: Wanted) -> Launch:
    """How to start any program. Raises QgaError if the user does not exist.

    users: those that a request may choose, if there are rules about them.
    """
    drop = config.exec_environment == "drop" or (
        config.exec_environment is None and config.exec_allow is not None
    )
    account = None
    if users is not None and wanted.user is not None and _may_choose(users, wanted.user):
        account = _account(wanted.user, f"the user '{wanted.user}'")
    elif config.exec_user:
        account = _account(config.exec_user, f"the user '{config.exec_user}' of [exec] user")
    limits = Limits(*(getattr(config, f"exec_{name}") for name in Limits._fields))
    return Launch(account=account, clean=drop, timeout=config.exec_timeout, limits=limits)


def judge_user(config: ChannelConfig, wanted: Wanted, setting: Setting) -> Verdict | None:
    """The refusal of the user or group that a request wants; None if it may choose.

    Rules that name programs, or a user, were written for that user. As another user the same
    program would read other files, such as configuration that other people can write to.
    """
    if wanted.user is None and wanted.group is None:
        return None
    if config.exec_user is None and config.exec_allow is None:
        return None
    forced = config.exec_user or "the agent's user"
    if wanted.group is None and wanted.user == config.exec_user:
        return None
    reason = f"programs run as {forced}, for {setting.name} is set"
    return Verdict(
        False, reason, setting.line(config.exec_user or ";".join(config.exec_allow or ()))
    )


def judge_choice(config: ChannelConfig, users: Rules, wanted: Wanted) -> Verdict | None:
    """The refusal of the user or group that a request wants, if rules list the permitted users.

    A request without a user is refused, because the rules do not include the agent's user.
    """
    if wanted.user is None and not config.exec_user:
        return users.judge("the agent's own user", ())
    if wanted.group is not None:
        refused = users.judge(f"the group '{wanted.group}'", ())
        return refused._replace(reason="a group cannot be chosen where [exec] users is set")
    if wanted.user in (None, config.exec_user) or _may_choose(users, str(wanted.user)):
        return None
    return users.judge(f"the user '{wanted.user}'", ())


def described(launch: Launch) -> str:
    """The user and the limits of a program, in words for --explain-policy."""
    bounds = {"timeout": launch.timeout, **launch.limits._asdict()}
    texts = [
        f"{name.replace('_', '-')}={value}" for name, value in bounds.items() if value is not None
    ]
    within = f" within {' '.join(texts)}" if texts else ""
    user = launch.account.pw_name if launch.account else "the agent's user"
    return f"it would run as {user}{within}"


def complete(launch: Launch, wanted: Wanted) -> Launch:
    """Add the user and the limits that a request wants. Raises QgaError for an unknown user."""
    account, group = launch.account, None
    if account is None and wanted == ANYHOW:
        return launch
    if wanted.group is not None:
        group = _group(wanted.group)
    if wanted.user is not None:
        account = _account(wanted.user, f"the user '{wanted.user}'", group)
    elif group is not None:
        account = account or _account(str(os.geteuid()), "the agent's user", group)
    return launch._replace(
        account=account,
        identity=_identity(account, group),
        directory=wanted.directory,
        timeout=lower(launch.timeout, wanted.timeout),
        limits=stricter(launch.limits, wanted.limits),
    )


def judge(
    rules: Rules, settings: Launch, name: str, arguments: Sequence[str], env: list[str] | None
) -> tuple[Launch, Verdict]:
    """How to start a program, and whether the rules allow it. Raises OSError if it is missing.

    A name without `/` means the first allowed program that is found in PATH.
    """
    missing: OSError | None = None
    paths = _candidates(name, settings, env)
    refused = _refuse(rules, name, paths, arguments)
    for path in paths:
        try:
            names = _names(path)
        except opening.Elsewhere as error:
            refused = refused._replace(detail=refused.detail or error.text)
            continue
        except OSError as error:
            if _allow(rules, path, arguments):
                missing = missing or error
            continue
        for known_as in names:
            allowed = _allow(rules, known_as, arguments)
            if allowed:
                verdict = _judge_trust(known_as, names[-1], settings, allowed)
                return settings._replace(name=known_as, executable=names[-1]), verdict
        if names[-1] != name:
            refused = refused._replace(detail=refused.detail or f"its real path is '{names[-1]}'")
    if missing is not None:
        raise missing
    return settings, refused


def _candidates(name: str, settings: Launch, env: list[str] | None) -> list[str]:
    """The absolute paths that the name may refer to; none if the kernel would not take them."""
    variables = variables_of(env, settings)
    if len(name) > trust.LONGEST_PATH or len(variables.get(b"PATH", b"")) > LONGEST_ARGUMENT:
        return []
    return [os.path.abspath(os.fsdecode(path)) for path in candidates(name, variables)]


def _names(path: str) -> list[str]:
    """The path of the symbolic link that was requested, if it is one, and the real path."""
    real = opening.real_path(os.fsencode(path))
    if os.path.isdir(real):
        raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
    link = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    return [real] if link == real else [link, real]


def _allow(rules: Rules, path: str, arguments: Sequence[str]) -> Verdict | None:
    matches = (rule.allows(path, arguments) for rule in rules.patterns)
    verdict = rules.judge(f"the program '{path}' with these arguments", matches)
    return verdict if verdict.allowed else None


def _refuse(rules: Rules, name: str, paths: Sequence[str], arguments: Sequence[str]) -> Verdict:
    """The refusal of a program. It depends on the name only, not on whether the program exists."""
    subject = f"the program '{name}'"
    named = [rule for rule in rules.patterns if any(map(rule.path.fullmatch, paths))]
    if named and not any(rule.allows(path, arguments) for rule in named for path in paths):
        subject += " with these arguments"  # which may be secret, and this text is logged
    return rules.judge(subject, ())


def _judge_trust(known_as: str, real: str, settings: Launch, allowed: Verdict) -> Verdict:
    owners = [settings.account.pw_uid] if settings.account else []
    try:
        if trust.require_program(known_as, owners) == real:
            return allowed
        reason = f"'{known_as}' was replaced while it was checked"
    except trust.Untrusted as error:
        reason = f"'{known_as}' could be replaced by another user: {error}"
    return Verdict(False, reason, allowed.rule)


def _may_choose(users: Rules, user: str) -> bool:
    """Whether the rules permit this user. A number is replaced by the name of its account.

    Unless the rules name it, an unknown user is refused like an existing one, so that a request
    cannot find out which users exist.
    """
    from qga.programs.accounts import find_user

    try:
        name = find_user(user).pw_name
    except (KeyError, OSError):
        name = user
    return any(pattern.fullmatch(name) for pattern in users.patterns)


def _identity(account: struct_passwd | None, group: int | None) -> Identity | None:
    """The IDs to run as; None if they are the agent's own."""
    if account is None or (account.pw_uid == os.geteuid() and group is None):
        return None
    from qga.programs.accounts import identity_of

    try:
        return identity_of(account, group)
    except OSError as error:
        raise QgaError(f"cannot find the groups of '{account.pw_name}': {error}") from error


def _account(user: str, subject: str, group: int | None = None) -> struct_passwd:
    from qga.programs.accounts import find_user

    try:
        return find_user(user, group)
    except KeyError:
        raise QgaError(f"{subject} is unknown in this guest") from None
    except OSError as error:
        raise QgaError(f"cannot look up {subject}: {error.strerror}") from error


def _group(group: str) -> int:
    from qga.programs.accounts import find_group

    try:
        return find_group(group)
    except KeyError:
        raise QgaError(f"the group '{group}' is unknown in this guest") from None
    except OSError as error:
        raise QgaError(f"cannot look up the group '{group}': {error.strerror}") from error
