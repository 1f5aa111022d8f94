"""Cases of the commands that only tell something: sync, ping, info, time, names."""

from __future__ import annotations

from tests.differential.agents import Case
from tests.differential.requests import call, given, words

SYNC = [
    case
    for command in ("guest-sync", "guest-sync-delimited")
    for case in given(
        command,
        "",
        *words("""
            "id":7 "id":"7" "id":1.0 "id":null "id":true "id":[] "id":{} "id":1e3 "id":-0
            "id":-9223372036854775808 "id":9223372036854775807 "id":9223372036854775808
            "id":18446744073709551615 "id":-9223372036854775809
            "id":1,"x":2 "id":"1","x":2 "x":1
        """),
    )
]

A_TIME = (rb'"return": \d{16}000}', b'"return": "@time"}')
"""Nanoseconds since 1970, always whole microseconds."""

INFORMATION = [
    Case("guest-get-time", (call("guest-get-time"),), [A_TIME]),
    Case("guest-get-devices", (call("guest-get-devices"), call("guest-get-devices", '"x":1'))),
    *(
        case
        for command in (
            "guest-ping",
            "guest-get-host-name",
            "guest-get-timezone",
            "guest-get-osinfo",
        )
        for case in given(command, "", '"x":1')
    ),
    *given("guest-get-time", '"x":1'),
    *given("guest-info", '"x":1'),
]
