"""NamedTuple and TypedDict as in typing, without the start-up cost of typing and collections.

They take a megabyte or two, and typing compiles each annotation that is a string. These leave the
strings alone until `typing.get_type_hints` is asked for them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
    from typing import TypedDict as TypedDict
else:
    import sys
    from _collections import _tuplegetter  # what collections.namedtuple uses

    def _take_annotations(space):
        """Take the annotations out of the body of a class.

        Without the __future__ import, Python 3.14 has a function there, and its argument 1 asks for
        values.
        """
        annotate = space.pop("__annotate_func__", None)
        return annotate(1) if annotate else space.pop("__annotations__", {})

    class _Tuple(tuple):
        """The common methods of named tuples."""

        __slots__ = ()

        def __repr__(self):
            members = ", ".join(f"{key}={value!r}" for key, value in self._asdict().items())
            return f"{type(self).__name__}({members})"

        def __getnewargs__(self):
            return tuple(self)

        def _asdict(self):
            return dict(zip(self._fields, self))

        def _replace(self, **changes):
            return type(self)(**{**self._asdict(), **changes})

    def _new_of(fields, defaults):
        """A `__new__` with these arguments; a general one would take several times as long."""
        arguments = ", ".join(fields)
        code = f"lambda cls, {arguments}: new(cls, ({arguments},))"
        made = eval(code, {"new": tuple.__new__})  # noqa: S307 - our own names
        made.__defaults__ = tuple(defaults)
        return made

    class _Record(type):
        """Turns a class with annotations into a named tuple."""

        def __new__(mcs, name, bases, space):
            types = _take_annotations(space)
            defaults = {field: space.pop(field) for field in types if field in space}
            getters = {field: _tuplegetter(at, "") for at, field in enumerate(types)}
            common = {
                "__slots__": (),
                "__new__": _new_of(types, defaults.values()),
                "_fields": tuple(types),
                "_field_defaults": defaults,
            }
            made = type(name, (_Tuple,), {**space, **getters, **common})
            made.__annotations__ = types
            return made

    class _Struct(type):
        """Turns a class with annotations into a TypedDict, whose objects are plain dicts."""

        def __new__(mcs, name, bases, space, total=True):
            own = _take_annotations(space)
            made = super().__new__(mcs, name, (dict,), space)
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
        """A base class like typing.NamedTuple."""
        raise TypeError("NamedTuple is a base class")

    def TypedDict(name, types, *, total=True):  # noqa: N802
        """A base class, or a function, like typing.TypedDict."""
        module = sys._getframe(1).f_globals["__name__"]
        return _Struct(name, (), {"__annotations__": types, "__module__": module}, total=total)

    # What stands for the functions among the bases of a class: their metaclasses make the class.
    _record = type.__new__(_Record, "NamedTuple", (), {})
    _struct = type.__new__(
        _Struct, "TypedDict", (), {"__annotations__": {}, "__required_keys__": frozenset()}
    )
    NamedTuple.__mro_entries__ = lambda bases: (_record,)
    TypedDict.__mro_entries__ = lambda bases: (_struct,)
