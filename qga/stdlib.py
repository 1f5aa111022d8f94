"""Lightweight replacements for parts of collections, functools, re and signal.

The modules of the standard library would take 2 MB on Python 3.14.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    import signal as signal
    from collections import deque as deque
    from functools import cached_property as cached_property

    expression = re.compile
else:
    import _signal
    from _collections import deque as deque

    signal = _signal

    class expression:  # noqa: N801 - stands for re.compile
        """Like re.compile, which is called when the expression is first used."""

        def __init__(self, text, flags=0):
            self._text = text
            self._flags = flags

        def __getattr__(self, name):
            import re

            method = getattr(re.compile(self._text, self._flags), name)
            setattr(self, name, method)  # this function is not asked for it again
            return method

    class cached_property:  # noqa: N801
        """Like functools.cached_property."""

        def __init__(self, find):
            self._find = find
            self.__doc__ = find.__doc__

        def __get__(self, it, kind=None):
            if it is None:
                return self
            value = it.__dict__[self._find.__name__] = self._find(it)
            return value
