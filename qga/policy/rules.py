"""The rules of a configuration, as a policy asks them: what they allow, why, and by which line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

if TYPE_CHECKING:
    from qga.settings.config import Origin


class Verdict(NamedTuple):
    """Whether something is allowed, why, and the line that decides; "" where no rule does.

    detail: what more there is to say, and not to the host: where a path really leads.
    """

    allowed: bool
    reason: str
    rule: str
    detail: str = ""


class Setting:
    """A key of the configuration, with the names that messages have for it."""

    def __init__(self, key: str, origin: Origin | None) -> None:
        section, _, self.key = key.rpartition(".")
        self.section = origin.section if origin else section or "general"
        self._origin = origin

    @property
    def name(self) -> str:
        return f"[{self.section}] {self.key}" + (f" of {self._origin.path}" if self._origin else "")

    def line(self, value: str, index: int | None = None) -> str:
        """The line with that value; `index` counts those of a list, None is for all of it."""
        text = f"{self.key}={value}"
        if self._origin is not None and (index or 0) < len(self._origin.lines):
            lines = self._origin.lines if index is None else self._origin.lines[index:][:1]
            numbers = ", ".join(map(str, dict.fromkeys(lines)))
            return f"{self._origin.path}, line {numbers}: {text}"
        if self.key.endswith("-rpcs"):
            return f"the command line: {text}"
        return f"by default: {text}"


class Rules:
    """The patterns of one key; without any everything is allowed."""

    def __init__(self, setting: Setting, texts: tuple[str, ...], compile: Callable[[str], Any]):
        self._setting = setting
        self._texts = texts
        self.patterns = [compile(text) for text in texts]

    def judge(self, subject: str, matches: Iterable[bool]) -> Verdict:
        """`matches` says of each pattern whether it allows the subject."""
        for index, (text, match) in enumerate(zip(self._texts, matches)):
            if match:
                rule = self._setting.line(text, index)
                return Verdict(True, f"{subject} is in {self._setting.name}", rule)
        rule = self._setting.line(";".join(self._texts))
        return Verdict(False, f"{subject} is not in {self._setting.name}", rule)
