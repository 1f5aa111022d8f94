"""--explain-policy: whether a request would be allowed, and which line decides.

It calls the same functions as the agent, and carries nothing out. For most commands only the name
matters. For others, the current state of files and programs is checked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from qga.errors import ConfigError, QgaError
from qga.plugin import discovery, schema
from qga.plugin.entry import INJECTED, takes_caller
from qga.plugin.registry import CommandGroup, command_names, commands_of
from qga.policy.policy import Policy
from qga.policy.rules import Verdict
from qga.service.log import Log
from qga.settings.config import ChannelConfig, Config
from qga.settings.spelling import nearest

if TYPE_CHECKING:
    from qga.plugin.registry import Judge
    from qga.plugin.signature import Check, Signature


class Explanation(NamedTuple):
    """The text to print, and whether the request would be allowed."""

    text: str
    allowed: bool


class _Known(NamedTuple):
    """A command, as defined by its class."""

    name: str
    access: str
    like: tuple[str, ...]
    verdict: Optional[Judge]
    signature: Signature
    decides: bool  # whether it may apply rules that only a call shows


def explain(config: Config, channel: str, name: str, words: Sequence[str]) -> Explanation:
    """Explain the verdict on a request. Raises ConfigError if it is invalid.

    channel: the name of the channel in the configuration; the first one is `main`.
    words: the arguments as KEY=VALUE, or as one JSON object.
    """
    policy = Policy(_channel(config, channel))
    groups = discovery.discover(config.plugin_dir, Log().warning)
    for _, text, stops in policy.unknown_names(command_names(groups)):
        if stops:
            raise ConfigError(text)
    command = _find(groups, name)
    arguments = _bind(command, words)
    try:
        verdict = policy.judge_command(command)
        if verdict.allowed and command.verdict is not None and arguments is not None:
            verdict = _decisive(verdict, command.verdict(policy, arguments))
    except (OSError, QgaError) as error:
        reason = error.desc if isinstance(error, QgaError) else error.strerror
        return Explanation(f"allowed, but would fail: {reason}\n", True)
    heading = "allowed" if verdict.allowed else "refused"
    where = "" if channel == "main" else f" on the channel '{channel}'"
    lines = [f"{heading}{where}: {verdict.reason}", f"  {verdict.rule}"]
    if verdict.detail:
        lines.append(f"  {verdict.detail[0].upper()}{verdict.detail[1:]}.")
    if verdict.allowed and command.verdict is not None and arguments is None:
        lines.append("  Its arguments matter, too: add them for a full answer.")
    if verdict.allowed and command.decides:
        lines.append("  The command may apply rules of its own when it is called.")
    return Explanation("\n".join(lines) + "\n", verdict.allowed)


def _decisive(of_name: Verdict, of_arguments: Verdict) -> Verdict:
    """The verdict that a rule made."""
    return of_arguments if of_arguments.rule else of_name._replace(detail=of_arguments.detail)


def _channel(config: Config, name: str) -> ChannelConfig:
    for channel in config.channels:
        if channel.name == name:
            return channel
    names = ", ".join(channel.name for channel in config.channels)
    raise ConfigError(f"unknown channel '{name}'; use one of {names}")


def _find(groups: list[type[CommandGroup]], wanted: str) -> _Known:
    for group in groups:
        for name, attribute, traits in commands_of(group):
            if name == wanted:
                handler = getattr(group, attribute)
                return _Known(
                    name,
                    traits.access,
                    traits.like,
                    traits.verdict,
                    schema.signature(handler, INJECTED),
                    _may_decide(handler, traits.verdict),
                )
    meant = nearest(wanted, command_names(groups))
    advice = f"did you mean '{meant}'?" if meant else "--block-rpcs=help lists all commands"
    raise ConfigError(f"unknown command '{wanted}'; {advice}")


def _may_decide(handler: Any, verdict: Optional[Judge]) -> bool:
    """Whether a plugin's command knows its caller's rules, but has no verdict about them."""
    is_ours = handler.__module__.startswith("qga.commands.")
    return not is_ours and verdict is None and takes_caller(handler)


def _bind(command: _Known, words: Sequence[str]) -> dict[str, Any] | None:
    """The arguments for the handler; None if none are given."""
    if not words:
        return None
    try:
        return command.signature.bind(_arguments(command.signature, words))
    except QgaError as error:
        raise ConfigError(f"{command.name}: {error}") from None


def _arguments(signature: Signature, words: Sequence[str]) -> dict[str, Any]:
    if words[0].startswith("{"):
        try:
            return dict(json.loads(" ".join(words)))
        except ValueError as error:
            raise ConfigError(f"'{' '.join(words)}' is not a JSON object: {error}") from None
    checks = {argument.name: argument.check for argument in signature.arguments}
    arguments = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"'{word}' is neither KEY=VALUE nor a JSON object")
        arguments[key] = _value(key, text, checks.get(key))
    return arguments


def _value(key: str, text: str, check: Check | None) -> Any:
    """The text itself if it is valid for the argument, otherwise parsed as JSON if possible."""
    try:
        if check is not None:
            return check(text, key)
    except QgaError:
        pass
    try:
        return json.loads(text)
    except ValueError:
        return text
