"""Events for IP addresses that are added and removed, from rtnetlink(7).

An IPv6 address counts only after duplicate address detection has succeeded. The kernel reports an
address again whenever its lifetime is renewed, so known addresses are remembered. If the kernel had
to drop messages, an event says so, and all addresses are read again.
"""

from __future__ import annotations

from errno import ENOBUFS
from typing import TYPE_CHECKING

from ._links import (
    RTM_DELADDR,
    RTM_NEWADDR,
    Address,
    address_in,
    ask_for_addresses,
    flags_in,
    messages,
    open_rtnetlink,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Callable

    from qga.loop import Loop

    Tell = Callable[..., None]

MAX_KNOWN = 4096
"""Addresses that are remembered; a renewal of any other one is reported as an addition."""

_GROUPS = 0x10 | 0x100  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_UNUSABLE = 0x40 | 0x08  # IFA_F_TENTATIVE, IFA_F_DADFAILED
_OPTIMISTIC = 0x04  # IFA_F_OPTIMISTIC: tentative, and used already (RFC 4429)
_SIZE = 32 * 1024  # the most that the kernel sends at once
_TURN = 64  # reads before other connections get a turn

_Key = tuple[int, str, int]  # index of the link, address, prefix


class Addresses:
    """Calls `tell` with address-added and address-removed. Raises OSError."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._known: dict[_Key, str] = {}  # names of the links
        # Subscribe before reading the current addresses, so that no change is missed.
        self._kernel = open_rtnetlink(_GROUPS)
        self._kernel.setblocking(False)
        try:
            for address in usable_addresses():
                self._remember(_key(address), _link_name(address.number))
        except BaseException:
            self._kernel.close()
            raise

    def watch(self, loop: Loop) -> None:
        self._loop = loop
        loop.watch(self._kernel.fileno(), self._on_readable)

    def close(self) -> None:
        self._loop.unwatch(self._kernel.fileno())
        self._kernel.close()

    def _on_readable(self, _events: int) -> None:
        for _ in range(_TURN):
            try:
                data, sender = self._kernel.recvfrom(_SIZE)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != ENOBUFS:
                    raise
                self._look_again()
                continue
            if sender[0] == 0:  # the kernel: other processes can send, too
                self.take(data)

    def take(self, data: bytes) -> None:
        """Report the changes in messages of the kernel."""
        for kind, at, end in messages(data):
            if kind in (RTM_NEWADDR, RTM_DELADDR):
                usable = kind == RTM_NEWADDR and is_usable(flags_in(data, at))
                self._note(address_in(data, at, end), usable)

    def _look_again(self) -> None:
        self._tell("missed", kind="address")
        current = {_key(address): address for address in usable_addresses()}
        for index, text, prefix in [key for key in self._known if key not in current]:
            version = 6 if ":" in text else 4
            self._note(Address(index, None, version, text, prefix), False)
        for address in current.values():
            self._note(address, True)

    def _note(self, address: Address, usable: bool) -> None:
        key = _key(address)
        if usable and key not in self._known:
            name = _link_name(address.number)
            self._remember(key, name)
            self._tell("address-added", **_described(address, name))
        elif not usable and (key in self._known or len(self._known) >= MAX_KNOWN):
            name = self._known.pop(key, "") or _link_name(address.number)
            self._tell("address-removed", **_described(address, name))

    def _remember(self, key: _Key, name: str) -> None:
        if len(self._known) < MAX_KNOWN:
            self._known[key] = name


def usable_addresses() -> Iterator[Address]:
    """The usable addresses of all links."""
    with open_rtnetlink() as kernel:
        for data in ask_for_addresses(kernel):
            for kind, at, end in messages(data):
                if kind == RTM_NEWADDR and is_usable(flags_in(data, at)):
                    yield address_in(data, at, end)


def is_usable(flags: int) -> bool:
    return not flags & _UNUSABLE or bool(flags & _OPTIMISTIC)


def _key(address: Address) -> _Key:
    return address.number, address.address, address.prefix


def _described(address: Address, name: str) -> dict[str, Any]:
    return {"interface": name, "address": address.address, "prefix": address.prefix}


def _link_name(number: int) -> str:
    """The name of a link, or its number if it no longer exists."""
    from socket import if_indextoname

    try:
        return if_indextoname(number)
    except OSError:
        return str(number)
