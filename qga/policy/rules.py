"""The rules of a configuration: what they allow, why, and which line decides."""

from __future__ import annotations

from qga.errors import Refused
from qga.records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Callable

    from qga.settings.config import Origin


class Verdict(NamedTuple):
    """Whether something is allowed, why, and the line that decides; "" if none does.

    detail: more for the guest's administrator, such as the real path; never sent to the host.
    """

    allowed: bool
    reason: str
    rule: str
    detail: str = ""


class Setting:
    """A key of the configuration, as messages refer to it."""

    def __init__(self, key: str, origin: Origin | None) -> None:
        section, _, self.key = key.rpartition(".")
        self.section = origin.section if origin else section or "general"
        self._origin = origin

    @property
    def name(self) -> str:
        return f"[{self.section}] {self.key}" + (f" of {self._origin.path}" if self._origin else "")

    def line(self, value: str, index: int | None = None) -> str:
        """The line with that value; `index` selects one of a list, None means the whole list."""
        text = f"{self.key}={value}"
        if self._origin is not None and (index or 0) < len(self._origin.lines):
            lines = self._origin.lines if index is None else self._origin.lines[index:][:1]
            numbers = ", ".join(map(str, dict.fromkeys(lines)))
            return f"{self._origin.path}, line {numbers}: {text}"
        # No other rule has a command-line option.
        if self.key.endswith("-rpcs"):
            return f"the command line: {text}"
        return f"by default: {text}"


class Rules:
    """The patterns of one key."""

    def __init__(self, setting: Setting, texts: tuple[str, ...], compile: Callable[[str], Any]):
        self._setting = setting
        self._texts = texts
        self.patterns = [compile(text) for text in texts]

    def judge(self, subject: str, matches: Iterable[bool]) -> Verdict:
        """The verdict on a subject; `matches`: whether each pattern allows it."""
        for index, (text, match) in enumerate(zip(self._texts, matches)):
            if match:
                rule = self._setting.line(text, index)
                return Verdict(True, f"{subject} is in {self._setting.name}", rule)
        rule = self._setting.line(";".join(self._texts))
        return Verdict(False, f"{subject} is not in {self._setting.name}", rule)


def require(verdict: Verdict) -> None:
    """Raise Refused unless the verdict is positive."""
    if not verdict.allowed:
        raise Refused(verdict.reason, verdict.rule, verdict.detail)
