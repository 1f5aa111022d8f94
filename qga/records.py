"""NamedTuple and TypedDict as in typing, without what those cost at the start.

typing compiles each annotation that is a string, and the first compile() of a process makes the
classes of Python's syntax trees, too: 0.3 MB and 2 ms in all. These leave the strings alone until
`typing.get_type_hints` is asked for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
    from typing import TypedDict as TypedDict
else:
    import sys
    from collections import namedtuple

    class _Record(type):
        """Makes a named tuple of a class with annotations."""

        def __new__(mcs, name, bases, space):
            types = space.pop("__annotations__", {})
            defaults = [space.pop(field) for field in types if field in space]
            made = namedtuple(name, types, defaults=defaults, module=space.pop("__module__"))
            made.__annotations__ = types
            for key, value in space.items():
                setattr(made, key, value)
            return made

    class _Struct(type):
        """Makes a class of a TypedDict, whose objects are plain dicts."""

        def __new__(mcs, name, bases, space, total=True):
            made = super().__new__(mcs, name, (dict,), space)
            own = space.get("__annotations__", {})
            inherited = [base for base in bases if isinstance(base, _Struct)]
            made.__annotations__ = {
                key: kind for base in inherited for key, kind in base.__annotations__.items()
            }
            made.__annotations__.update(own)
            made.__total__ = total
            made.__required_keys__ = frozenset(own if total else ()).union(
                *(base.__required_keys__ for base in inherited)
            )
            return made

        def __init__(cls, name, bases, space, total=True):
            super().__init__(name, bases, space)

        def __call__(cls, *args, **members):
            return dict(*args, **members)

    def NamedTuple():  # noqa: N802
        """A base class, as typing.NamedTuple."""
        raise TypeError("NamedTuple is a base class")

    def TypedDict(name, types, *, total=True):  # noqa: N802
        """A base class, or a function, as typing.TypedDict."""
        module = sys._getframe(1).f_globals["__name__"]
        return _Struct(name, (), {"__annotations__": types, "__module__": module}, total=total)

    # What stands for the functions among the bases of a class: their metaclasses make the class.
    _record = type.__new__(_Record, "NamedTuple", (), {})
    _struct = type.__new__(
        _Struct, "TypedDict", (), {"__annotations__": {}, "__required_keys__": frozenset()}
    )
    NamedTuple.__mro_entries__ = lambda bases: (_record,)
    TypedDict.__mro_entries__ = lambda bases: (_struct,)
