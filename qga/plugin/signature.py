"""The arguments of a command, and checks of values of plain types, with the words of QAPI.

`plain` reads a signature without the module `typing`, which `qga.plugin.schema` needs for the
others: a host that only pings the agent does not make it larger.
"""

from __future__ import annotations

from qga.errors import QgaError
from qga.records import NamedTuple
from qga.wire.payload import Base64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FunctionType
    from typing import Any, Callable

    Check = Callable[[Any, str], Any]
    """Takes a JSON value and its place in the request; returns the value, or raises QgaError."""

_INT64 = range(-(2**63), 2**63)  # the range of QAPI's int
_MODULO_UINT64 = range(-(2**63), 2**64)


class Argument(NamedTuple):
    """One argument of a command: its name on the wire and in Python, and its type."""

    name: str
    keyword: str
    annotation: Any
    required: bool
    check: Check


class Signature(NamedTuple):
    """The arguments and the result of a command, derived from its handler."""

    arguments: tuple[Argument, ...]
    returns: Any
    namespace: dict[str, Any]

    def describe(self) -> dict[str, Any]:
        """The types of arguments and result by their QAPI names; `*name` is optional."""
        from qga.plugin.schema import describe

        return {
            "arguments": {
                ("" if argument.required else "*") + argument.name: describe(
                    argument.annotation, self.namespace
                )
                for argument in self.arguments
            },
            "returns": describe(self.returns, self.namespace),
        }

    def bind(self, given: dict[str, Any]) -> dict[str, Any]:
        """Checked keyword arguments from the `arguments` of a request.

        Raises QgaError in QAPI's order: for each argument in turn if it is missing or has the wrong
        type, and only then for an unknown one.
        """
        bound = {}
        for name, keyword, _, required, check in self.arguments:
            if name in given:
                value = given[name]
                if type(value) is Base64 and check is not check_base64:
                    value = given[name] = str(value)
                bound[keyword] = check(value, name)
            elif required:
                raise QgaError(f"Parameter '{name}' is missing")
        if len(bound) < len(given):
            known = {argument.name for argument in self.arguments}
            refuse_unknown(given, known, "")
        return bound


def wrong_type(place: str, expected: str) -> QgaError:
    return QgaError(f"Invalid parameter type for '{place}', expected: {expected}")


def refuse_unknown(given: dict[str, Any], known: Any, prefix: str) -> None:
    for name in given:
        if name not in known:
            raise QgaError(f"Parameter '{prefix}{name}' is unexpected")


def check_int(value: Any, place: str) -> int:
    # Not isinstance: a JSON true is a bool, which is a subclass of int.
    if type(value) is int and value in _INT64:
        return value
    raise wrong_type(place, "integer")


def check_uint64(value: Any, place: str) -> int:
    """A negative integer wraps around at 2^64, as in QAPI."""
    if type(value) is int and value in _MODULO_UINT64:
        return value % 2**64
    raise QgaError(f"Parameter '{place}' expects uint64")


def check_str(value: Any, place: str) -> str:
    if type(value) is str:
        return value
    raise wrong_type(place, "string")


def check_base64(value: Any, place: str) -> Base64:
    return value if type(value) is Base64 else Base64(check_str(value, place))


def check_bool(value: Any, place: str) -> bool:
    if type(value) is bool:
        return value
    raise wrong_type(place, "boolean")


def check_number(value: Any, place: str) -> float:
    if type(value) is float or type(value) is int:
        return value
    raise wrong_type(place, "number")


_PLAIN: dict[str, Check] = {
    "int": check_int,
    "str": check_str,
    "bool": check_bool,
    "float": check_number,
}
_RETURNED = {"int": int, "str": str, "bool": bool, "float": float, "None": None}


def plain(function: FunctionType, injected: frozenset[str]) -> Signature | None:
    """The signature of a handler whose annotations are plain words and have no defaults."""
    annotations = dict(function.__annotations__)
    returned = annotations.pop("return", "")
    arguments = {name: text for name, text in annotations.items() if name not in injected}
    if function.__defaults__ or function.__kwdefaults__:
        return None
    for text in (*arguments.values(), returned):
        # Without the __future__ import it is the type itself; a module may also shadow the name.
        if type(text) is not str or text in function.__globals__:
            return None
    if returned not in _RETURNED or not _PLAIN.keys() >= set(arguments.values()):
        return None
    found = tuple(
        Argument(name.replace("_", "-"), name, _RETURNED[text], True, _PLAIN[text])
        for name, text in arguments.items()
    )
    return Signature(found, _RETURNED[returned], function.__globals__)
