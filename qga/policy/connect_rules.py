"""Rules for connections from the guest to services (qga-connect).

What must stay true: the address that was approved is the one that is connected to. A name is
looked up once, and each of its addresses is checked. The path of a socket is resolved to a
descriptor, like that of a file (qga.policy.opening), and the connection is made through it.

If there are rules, a refusal does not reveal whether the guest knows a name.
"""

from __future__ import annotations

import os
import stat
from errno import ENOTSOCK
from typing import Any

from qga.errors import QgaError
from qga.policy import opening
from qga.policy.rules import Rules, Verdict
from qga.records import NamedTuple
from qga.wire.payload import c_string

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - Linux connects there instead
_LONGEST_NAME = 255  # RFC 1035
_MAPPED = "::ffff:"  # an IPv4 address as IPv6


class Address(NamedTuple):
    """An address to connect to; `place` is what connect(2) takes."""

    family: int
    place: tuple[Any, ...]


def judge_host(rules: Rules | None, host: str, port: int) -> tuple[list[Address], Verdict]:
    """The permitted addresses of a host, and the verdict. It may wait for the name service.

    Raises QgaError if there is no such host.
    """
    subject = f"'[{host}]:{port}'" if ":" in host else f"'{host}:{port}'"
    if rules is None:
        return _lookup(host, port), Verdict(True, f"{subject} may be connected to", "")
    try:
        found = _lookup(host, port)
    except QgaError as error:
        return [], rules.judge(subject, ())._replace(detail=error.desc)
    for address in found:
        matches = [rule.allows_address(_plain(address), port) for rule in rules.patterns]
        if any(matches):
            rest = [each for each in found if _is_allowed(rules, each, port)]
            return rest, rules.judge(subject, matches)
    shown = ", ".join(_plain(address) for address in found)
    detail = "" if shown == host else f"its addresses: {shown}"
    return [], rules.judge(subject, ())._replace(detail=detail)


def judge_socket(rules: Rules | None, path: str) -> tuple[int, Verdict]:
    """An O_PATH descriptor of a socket, which the caller closes; -1 if refused. Raises OSError."""
    subject = f"'unix:{path}'"
    try:
        direct = path if rules is None else opening.without_dots(path)
        place = opening.find(c_string(direct), os.O_RDONLY)
    except OSError:
        if rules is None:
            raise
        verdict = _judge_path(rules, subject, opening.probable_path(path))
        if verdict.allowed:
            raise
        return -1, verdict
    try:
        verdict = Verdict(True, f"{subject} may be connected to", "")
        if rules is not None:
            verdict = _judge_path(rules, subject, place.path)
            if place.path != path:
                verdict = verdict._replace(detail=f"its real path is '{place.path}'")
        if verdict.allowed and not stat.S_ISSOCK(os.fstat(place.fd).st_mode):
            raise OSError(ENOTSOCK, "not a socket")
    except BaseException:
        os.close(place.fd)
        raise
    if verdict.allowed:
        return place.fd, verdict
    os.close(place.fd)
    return -1, verdict


def _judge_path(rules: Rules, subject: str, real: str) -> Verdict:
    return rules.judge(subject, [rule.allows_socket(real) for rule in rules.patterns])


def _is_allowed(rules: Rules, address: Address, port: int) -> bool:
    return any(rule.allows_address(_plain(address), port) for rule in rules.patterns)


def _lookup(host: str, port: int) -> list[Address]:
    import socket

    # Python encodes a name of megabytes for minutes, and nothing could stop it.
    if len(host) > _LONGEST_NAME:
        raise QgaError(f"a host name has at most {_LONGEST_NAME} characters, not {len(host)}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a valid name"
        raise QgaError(f"cannot look up '{host}': {reason}") from None
    return [Address(family, _effective(place)) for family, _, _, _, place in found]


def _effective(place: tuple[Any, ...]) -> tuple[Any, ...]:
    return (_LOOPBACK.get(place[0], place[0]), *place[1:])


def _plain(address: Address) -> str:
    """The address in the form that rules use: without a scope, and IPv4-mapped ones as IPv4."""
    text = str(address.place[0]).partition("%")[0]
    return text[len(_MAPPED) :] if text.startswith(_MAPPED) and "." in text else text
