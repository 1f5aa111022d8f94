"""The audit trail: an entry for each request that changes something, and for each refusal.

What must stay true:

- A command that changes something is logged at level `info` when it has finished, one that only
  reads at `debug`, and a request that never reached its command as a warning. `Command.changes`
  tells them apart.
- No secret is logged. An argument that `@command(secret=...)` names is hidden, also where an error
  quotes it: as it is, as Python shows it, or decoded. Of a fault in such a command only the class
  is logged, because its text may quote any part. Of a refused request no argument is logged,
  because nobody has checked them.
- Every change is logged, however many there are.
- A flood of anything else costs little, and no channel hides the entries of another: for each
  command of a channel MAX_BURST entries in WINDOW seconds are logged, then only their number. The
  same holds for changes to something whose opening was logged (`Command.continues`), for each of
  these.
- What is not logged costs nothing: the dispatcher asks before it makes an Entry.
"""

from __future__ import annotations

import time
from _json import encode_basestring, make_encoder

from qga.errors import CommandDisabled, CommandNotFound, QgaError, Refused
from qga.service.log import Log
from qga.service.sinks import DEBUG, INFO
from qga.wire.payload import Base64, decode_base64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from qga.loop import Loop
    from qga.plugin.entry import Command
    from qga.policy.caller import Caller

    Writer = Callable[..., None]

MAX_BURST = 100
"""Entries of one kind and channel within WINDOW."""

WINDOW = 10.0
"""Seconds."""

MAX_ARGUMENTS = 1024
"""Characters logged of a request's arguments, or of the reason for a failure or a refusal."""

_MOST_WINDOWS = 1000  # beyond, those that are over are forgotten

_MAX_DEPTH = 8  # levels logged of an argument

MAX_NAME = 200
"""Characters logged of a command's name, which the client chooses, and of an error about it."""

_HIDDEN = "(hidden)"
_BASE64_OF_A_CHARACTER = 8  # bytes at most, for four of UTF-8, also in lines

# As json.dumps, which takes a megabyte: compact, beyond ASCII as it is, other objects by `str`.
_chunks_of = make_encoder(None, str, encode_basestring, None, ":", ",", False, False, True)


class Entry:
    """A command that is being carried out, to be logged when it has finished."""

    __slots__ = ("caller", "command", "given", "since")

    def __init__(self, caller: Caller, command: Command, given: dict[str, Any]) -> None:
        self.caller = caller
        self.command = command
        self.given = given
        self.since = time.monotonic()


class Audit:
    """The audit trail of one agent.

    reads, changes: whether commands that only read, and those that change something, are logged.
    """

    def __init__(self, log: Log, loop: Loop) -> None:
        self._log = log
        self._limit = Limit(loop)
        self.reads = log.keeps(DEBUG, "command")
        self.changes = log.keeps(INFO, "command")

    def record(self, entry: Entry, error: BaseException | None) -> None:
        """Log a command that has finished."""
        command = entry.command
        write = self._log.info if command.changes else self._log.debug
        if not self._is_due(entry, error, write):
            return
        seconds = time.monotonic() - entry.since
        shown, secrets = _without_secrets(entry.given, command.secret)
        arguments = _as_json(shown)
        facts = {**_origin(command.name, entry.caller), "arguments": arguments}
        if "\\n" in arguments:
            facts["brief"] = _as_json(_first_lines(shown))
        facts["duration_usec"] = str(round(seconds * 1e6))
        facts["result"] = "success"
        outcome = "done"
        if error is not None:
            reason = error.desc if isinstance(error, QgaError) else type(error).__name__
            for secret in secrets:
                reason = _hide(secret, reason)
            reason = _cut_text(reason)
            facts["result"], facts["error"] = _class_of(error), reason
            outcome = f"failed: {reason}"
        text = f"{_who(entry.caller)}: {command.name} {arguments}: {outcome} ({seconds:.3f} s)"
        write(text, "command", **facts)

    def record_refusal(
        self, caller: Caller, name: str, command: Command | None, error: BaseException
    ) -> None:
        """Log a request for an unknown command, with invalid arguments, or against the policy."""
        what = f"refused: {command.name if command else 'no command'}"
        if not self._limit.admits(caller.channel, what, self._log.warning):
            return
        facts = {**_origin(name[:MAX_NAME], caller), "result": _class_of(error)}
        reason = "invalid arguments"
        if isinstance(error, (CommandNotFound, Refused)):  # any other error may quote the request
            most = MAX_ARGUMENTS if isinstance(error, Refused) else MAX_NAME
            reason = facts["error"] = error.desc[:most]
        if isinstance(error, (CommandDisabled, Refused)) and error.rule:
            facts["rule"] = error.rule
            reason += f" ({error.rule})"
        if isinstance(error, Refused) and error.detail:
            reason += f"; {error.detail[:MAX_ARGUMENTS]}"
        text = f"{_who(caller)}: {name[:MAX_NAME]} refused: {reason}"
        self._log.warning(text, "refused", **facts)

    def record_fault(self, caller: Caller, error: QgaError) -> None:
        """Log bytes that are not a request, without what the error quotes of them."""
        if self._limit.admits(caller.channel, "not a request", self._log.debug):
            reason, quoted, _ = error.desc.partition(" '")
            reason += " …" if quoted else ""
            self._log.debug(f"channel {caller.channel}: read data: not a request: {reason}")

    def _is_due(self, entry: Entry, error: BaseException | None, write: Writer) -> bool:
        command, what = entry.command, entry.command.name
        if command.changes and not command.continues:
            return True
        if command.continues and error is None:
            what += f" {entry.given.get(command.continues)}"
        return self._limit.admits(entry.caller.channel, what, write)


class _Window:
    __slots__ = ("count", "end")

    def __init__(self, end: float) -> None:
        self.end = end
        self.count = 0


class Limit:
    """At most MAX_BURST entries of a kind and a channel in WINDOW seconds, then how many more."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._windows: dict[tuple[str, str], _Window] = {}

    def admits(self, channel: str, what: str, write: Writer) -> bool:
        """write: logs such entries, and in the end the number of the others."""
        now = time.monotonic()
        window = self._windows.get((channel, what))
        if window is None or now >= window.end:
            if len(self._windows) >= _MOST_WINDOWS:
                self._windows = {at: each for at, each in self._windows.items() if now < each.end}
            window = self._windows[channel, what] = _Window(now + WINDOW)
        window.count += 1
        if window.count == MAX_BURST + 1:
            ended = window
            self._loop.call_later(
                ended.end - now, lambda: _report(channel, what, ended.count - MAX_BURST, write)
            )
        return window.count <= MAX_BURST


def _report(channel: str, what: str, count: int, write: Writer) -> None:
    write(
        f"channel {channel}: {what}: {count} more within {WINDOW:.0f} s",
        "left-out",
        channel=channel,
        left_out=count,
    )


def _origin(name: str, caller: Caller) -> dict[str, str]:
    facts = {"command": name, "channel": caller.channel}
    if caller.peer:
        facts["peer"] = caller.peer
    return facts


def _who(caller: Caller) -> str:
    peer = f" ({caller.peer})" if caller.peer else ""
    return f"channel {caller.channel}{peer}"


def _class_of(error: BaseException) -> str:
    return error.error_class if isinstance(error, QgaError) else QgaError.error_class


def _hide(secret: str | Base64, reason: str) -> str:
    # Neither a longer text nor what it encodes can be in it.
    most = _BASE64_OF_A_CHARACTER * len(reason)
    text = secret[: most + 1] if isinstance(secret, str) else secret.beginning(most + 1)
    if len(text) > most:
        return reason
    texts = [text]
    try:
        texts.append(decode_base64(text).decode())
    except (QgaError, UnicodeDecodeError):  # it is not base64 of a text
        pass
    for form in (form for each in filter(None, texts) for form in _forms(each)):
        reason = reason.replace(form, _HIDDEN)
    return reason


def _forms(text: str) -> tuple[str, ...]:
    """How an error may quote a text."""
    raw = text.encode("utf-8", "surrogatepass")
    return (text, repr(text)[1:-1], ascii(text)[1:-1], repr(raw)[2:-1])


def _without_secrets(
    given: dict[str, Any], secret: tuple[str, ...]
) -> tuple[Any, list[str | Base64]]:
    """Return the arguments, cut, and the texts that were hidden in them."""
    shown = dict(given)
    hidden: list[Any] = []
    for mark in secret:
        name = mark.rstrip("=")
        if name not in given:
            continue
        values = given[name] if isinstance(given[name], list) else [given[name]]
        if mark == name:
            shown[name] = _HIDDEN
            hidden += values
        else:
            pairs = [value.partition("=") for value in values]
            shown[name] = [key + "=" + _HIDDEN if equals else _HIDDEN for key, equals, _ in pairs]
            hidden += [value if equals else key for key, equals, value in pairs]
    return _cut(shown), [value for value in hidden if isinstance(value, (str, Base64)) and value]


def _cut(value: Any, depth: int = 0) -> Any:
    """Cut a value that may have megabytes or a thousand levels, before it becomes JSON."""
    if isinstance(value, str):
        return value[:MAX_ARGUMENTS]
    if isinstance(value, Base64):
        return value.beginning(MAX_ARGUMENTS)
    if isinstance(value, (list, dict)) and depth == _MAX_DEPTH:
        return "…"
    if isinstance(value, list):
        return [_cut(item, depth + 1) for item in value[:MAX_ARGUMENTS]]
    if isinstance(value, dict):
        members = list(value.items())[:MAX_ARGUMENTS]
        return {name: _cut(item, depth + 1) for name, item in members}
    return value


def _first_lines(value: Any) -> Any:
    """With only the first line of each text: qgactl cp sends long scripts."""
    if isinstance(value, str):
        first, *more = value.strip().split("\n", 1)
        return f"{first} …" if more else value
    if isinstance(value, list):
        return [_first_lines(item) for item in value]
    if isinstance(value, dict):
        return {name: _first_lines(item) for name, item in value.items()}
    return value


def _as_json(value: Any) -> str:
    return _cut_text("".join(_chunks_of(value, 0)))


def _cut_text(text: str) -> str:
    return text[:MAX_ARGUMENTS] + "…" if len(text) > MAX_ARGUMENTS else text
