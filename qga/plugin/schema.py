"""QAPI types from Python annotations: checks of arguments, descriptions of commands.

The signature of a handler is the only schema. Annotations and their QAPI types:

    int, str, bool, float    integer, string, boolean, number
    UInt64                   uint64
    Base64                   a string, decoded
    list[T]                  a list
    Literal["a", "b"]        an enum
    TypedDict                a struct; a `NotRequired` member is optional
    Union[...]               an alternate
    a default                an optional argument; `Optional[T] = None` is an optional T, and a
                             JSON null is never "absent"

An enum or alternate has the name of the module variable that it is assigned to. Checks are strict,
without coercion, and use the error messages of QAPI, which clients know. Annotations are resolved
when a command is first used, to keep the start fast.
"""

from __future__ import annotations

import sys
from types import FunctionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from qga.errors import QgaError
from qga.plugin.signature import (
    Argument,
    Signature,
    check_base64,
    check_bool,
    check_int,
    check_number,
    check_str,
    check_uint64,
    refuse_unknown,
    wrong_type,
)
from qga.wire.payload import Base64, Payload

if TYPE_CHECKING:
    from typing_extensions import NotRequired as NotRequired

    from qga.plugin.signature import Check
elif sys.version_info >= (3, 11):
    from typing import NotRequired  # novermin
else:

    class NotRequired:
        """typing.NotRequired, for functional TypedDicts on Python 3.9 and 3.10."""

        def __class_getitem__(cls, item: Any) -> Any:
            return Annotated[item, cls]


UInt64 = Annotated[int, "uint64"]

_UNIONS: tuple[Any, ...] = (Union,)
if sys.version_info >= (3, 10):
    from types import UnionType  # novermin

    _UNIONS += (UnionType,)


def signature(function: FunctionType, injected: frozenset[str]) -> Signature:
    """The signature of a handler; `injected`: parameters that do not come from the request."""
    namespace = function.__globals__
    hints = get_type_hints(function, include_extras=True)
    code = function.__code__
    keywords = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    first_default = code.co_argcount - len(function.__defaults__ or ())
    optional = {
        *(function.__kwdefaults__ or ()),
        *keywords[first_default - 1 : code.co_argcount - 1],
    }
    arguments = []
    for keyword in keywords:
        if keyword in injected:
            continue
        if keyword not in hints:
            raise TypeError(f"{function.__qualname__}: argument '{keyword}' has no type annotation")
        required = keyword not in optional
        annotation = hints[keyword] if required else _without_none(hints[keyword])
        check = checker(annotation, namespace)
        name = keyword.replace("_", "-")
        arguments.append(Argument(name, keyword, annotation, required, check))
    return Signature(tuple(arguments), hints.get("return"), namespace)


def checker(annotation: Any, namespace: dict[str, Any]) -> Check:
    """The function that checks a JSON value against `annotation`."""
    simple = _SIMPLE.get(annotation)
    if simple is not None:
        return simple
    origin = get_origin(annotation)
    if origin is Literal:
        return _enum_checker(get_args(annotation))
    if origin is list:
        return _list_checker(checker(get_args(annotation)[0], namespace))
    if origin in _UNIONS:
        return _alternate_checker(annotation, namespace)
    if is_struct(annotation):
        return _struct_checker(annotation)
    raise TypeError(f"the annotation {annotation!r} has no QAPI type")


def describe(annotation: Any, namespace: dict[str, Any]) -> Any:
    """The QAPI name of a type; `[name]` for a list, None for no result."""
    if annotation in _NAMES:
        return _NAMES[annotation]
    if get_origin(annotation) is list:
        return [describe(get_args(annotation)[0], namespace)]
    if is_struct(annotation):
        return annotation.__name__
    return _alias(annotation, namespace)


def is_struct(annotation: Any) -> bool:
    """Whether `annotation` is a TypedDict."""
    # typing.is_typeddict is new in Python 3.10.
    return isinstance(annotation, type) and hasattr(annotation, "__total__")


def members(struct: Any) -> dict[str, tuple[Any, bool]]:
    """The type of each member of a TypedDict, and whether it is required."""
    result = {}
    for name, hint in get_type_hints(struct, include_extras=True).items():
        if get_origin(hint) is NotRequired:
            result[name] = (get_args(hint)[0], False)
        elif get_origin(hint) is Annotated and hint.__metadata__[-1] is NotRequired:
            result[name] = (_without_last_note(hint), False)
        else:
            result[name] = (hint, name in struct.__required_keys__)
    return result


def _without_last_note(annotated: Any) -> Any:
    """What was annotated: one of several notes is of a nested Annotated, such as UInt64."""
    form: Any = Annotated
    kept = get_args(annotated)[:-1]
    return form[kept] if kept[1:] else kept[0]


def carries_number(annotation: Any) -> bool:
    """Whether a value of this type may hold a float, at any depth."""
    if annotation is float:
        return True
    if is_struct(annotation):
        return any(carries_number(kind) for kind, _ in members(annotation).values())
    return any(carries_number(part) for part in get_args(annotation))


def _alias(annotation: Any, namespace: dict[str, Any]) -> str:
    for name, value in namespace.items():
        if value == annotation:
            return name
    return str(annotation)


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) not in _UNIONS:
        return annotation
    return Union[tuple(part for part in get_args(annotation) if part is not type(None))]


_SIMPLE: dict[Any, Check] = {
    int: check_int,
    UInt64: check_uint64,
    str: check_str,
    Base64: check_base64,
    bool: check_bool,
    float: check_number,
    Any: lambda value, place: value,
}

_NAMES: dict[Any, Any] = {
    int: "int",
    UInt64: "uint64",
    str: "str",
    bool: "bool",
    float: "number",
    Base64: "str",
    Payload: "str",
    Any: "any",
    None: None,
    type(None): None,
}


def _enum_checker(values: tuple[Any, ...]) -> Check:
    def check(value: Any, place: str) -> str:
        name = check_str(value, place)
        if name in values:
            return name
        raise QgaError(f"Parameter '{place}' does not accept value '{value}'")

    return check


def _list_checker(check_item: Check) -> Check:
    def check(value: Any, place: str) -> list[Any]:
        if type(value) is not list:
            raise wrong_type(place, "array")
        return [check_item(item, f"{place}[{at}]") for at, item in enumerate(value)]

    return check


def _struct_checker(struct: Any) -> Check:
    fields = [
        (name, required, checker(kind, vars(sys.modules[struct.__module__])))
        for name, (kind, required) in members(struct).items()
    ]
    known = {name for name, _, _ in fields}

    def check(value: Any, place: str) -> dict[str, Any]:
        if type(value) is not dict:
            raise wrong_type(place, "object")
        bound = {}
        for name, required, check_member in fields:
            if name in value:
                bound[name] = check_member(value[name], f"{place}.{name}")
            elif required:
                raise QgaError(f"Parameter '{place}.{name}' is missing")
        refuse_unknown(value, known, f"{place}.")
        return bound

    return check


_JSON_TYPES: dict[Any, type] = {int: int, str: str, Base64: str, bool: bool, float: float}


def _alternate_checker(annotation: Any, namespace: dict[str, Any]) -> Check:
    """Select the branch by the JSON type of the value.

    If one branch is an integer, the error for a float is that an integer was expected, as in QAPI.
    """
    branches = {}
    for branch in get_args(annotation):
        json_type = _JSON_TYPES.get(branch) or (
            str if get_origin(branch) is Literal else get_origin(branch) or dict
        )
        branches[json_type] = checker(branch, namespace)
    if int in branches:
        branches.setdefault(float, branches[int])
    name = _alias(annotation, namespace)

    def check(value: Any, place: str) -> Any:
        branch = branches.get(type(value))
        if branch is None:
            raise wrong_type(place, name)
        return branch(value, place)

    return check
