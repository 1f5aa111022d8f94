"""Rules for opening files.

A path is resolved and opened by qga.policy.opening; here the real path is judged. What must stay
true: an error or a refusal does not reveal whether a file exists that the host may not open.
"""

from __future__ import annotations

import os

from qga.policy import opening
from qga.policy.rules import Rules, Verdict, require
from qga.records import NamedTuple
from qga.wire.payload import c_string

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional


class FileRules(NamedTuple):
    """The rules of a channel about files.

    read, write: the patterns of [files]; None allows everything.
    no_writing: the refusal of the profile for opening a file for writing; None if it permits that.
    follow_symlinks: whether writing follows a symbolic link in the last component of a path.
    """

    read: Optional[Rules]
    write: Optional[Rules]
    no_writing: Optional[Verdict]
    follow_symlinks: bool

    @property
    def has_patterns(self) -> bool:
        return self.read is not None or self.write is not None

    def open_file(self, path: str, flags: int) -> int:
        """See qga.policy.policy.Policy.open_file."""
        if not self.has_patterns:
            if self.no_writing is not None:
                require(self.judge_path(path, path, flags))
            return opening.open_file(path, flags, self.follow_symlinks)
        direct = opening.without_dots(path)
        try:
            return opening.open_file(
                direct,
                flags,
                self.follow_symlinks,
                lambda real: require(self.judge_path(path, real, flags)),
            )
        except OSError as error:
            # Before the error, which would reveal whether a forbidden file exists.
            require(self._judge_failure(path, flags, error))
            raise

    def judge_file(self, path: str, flags: int) -> Verdict:
        """The verdict of `open_file`, without opening anything. Raises OSError."""
        direct = opening.without_dots(path) if self.has_patterns else path
        try:
            place = opening.find(c_string(direct), self._with_links(flags))
            try:
                verdict = self.judge_path(path, place.path, flags)
                if verdict.allowed:
                    opening.refuse_dangling_link(place)
            finally:
                os.close(place.fd)
        except OSError as error:
            # Without patterns the agent opens it, wherever the path leads.
            if not self.has_patterns and isinstance(error, opening.Elsewhere):
                return self.judge_path(path, path, flags)
            verdict = self._judge_failure(path, flags, error)
            if verdict.allowed:
                raise
        return verdict

    def judge_path(self, path: str, real: str, flags: int) -> Verdict:
        """The verdict for a path whose real path is `real`; "" if no pattern can match it."""
        access = flags & os.O_ACCMODE
        if access != os.O_RDONLY and self.no_writing is not None:
            return self.no_writing
        verdict = Verdict(True, f"'{path}' may be opened", "")
        for rules, unused in ((self.read, os.O_WRONLY), (self.write, os.O_RDONLY)):
            if rules is not None and access != unused and verdict.allowed:
                matches = (bool(pattern.fullmatch(real)) for pattern in rules.patterns)
                verdict = rules.judge(f"'{path}'", matches)
        if real in ("", path):
            return verdict
        return verdict._replace(detail=f"its real path is '{real}'")

    def _judge_failure(self, path: str, flags: int, error: OSError) -> Verdict:
        """The verdict for a path that cannot be opened: may the host see its error?"""
        if isinstance(error, opening.Elsewhere):
            return self.judge_path(path, "", flags)._replace(detail=error.text)
        probable = opening.probable_path(path)
        verdict = self.judge_path(path, probable, flags)
        if not probable:
            return verdict._replace(detail=error.strerror or "")
        if verdict.allowed and self._with_links(flags) & os.O_NOFOLLOW:
            # The place of the link itself counts as well.
            directory, name = os.path.split(os.path.abspath(path))
            beside = os.path.join(opening.probable_path(directory), name)
            verdict = self.judge_path(path, beside, flags)
        return verdict

    def _with_links(self, flags: int) -> int:
        """The flags for open(2), with O_NOFOLLOW if the configuration asks for it."""
        if flags & os.O_ACCMODE and not self.follow_symlinks:
            return flags | os.O_NOFOLLOW
        return flags
