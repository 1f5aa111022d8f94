"""The guest's memory, in blocks that the kernel can take online and offline."""

from __future__ import annotations

import errno
import os
import re
from functools import cache
from typing import Literal

from qga import CommandGroup, NotRequired, UInt64, command, until_given_up
from qga.records import TypedDict

from ._sysfs import keep_open, numbers_of, parse_number, read_kept_word, read_word

_MEMORY = "/sys/devices/system/memory"
# The kernel is about to add a block, or to remove it. ENODEV: it has done so since the file was
# opened.
_PASSING = (errno.ENOENT, errno.ENODEV)
_BLOCK_SIZE = f"{_MEMORY}/block_size_bytes"

GuestMemoryBlock = TypedDict(
    "GuestMemoryBlock",
    {"phys-index": UInt64, "online": bool, "can-offline": NotRequired[bool]},
)

GuestMemoryBlockResponseType = Literal[
    "success", "not-found", "operation-not-supported", "operation-failed"
]

GuestMemoryBlockResponse = TypedDict(
    "GuestMemoryBlockResponse",
    {
        "phys-index": UInt64,
        "response": GuestMemoryBlockResponseType,
        "error-code": NotRequired[int],
    },
)


class GuestMemoryBlockInfo(TypedDict):
    size: UInt64


class Memory(CommandGroup):
    """Memory blocks."""

    @command(access="audit", available=_BLOCK_SIZE)
    def guest_get_memory_blocks(self) -> list[GuestMemoryBlock]:
        """List the memory blocks: whether each is online, and whether it can be taken offline."""
        directory = keep_open(_MEMORY)
        numbers = numbers_of("memory", directory)
        removable = _removable_blocks(directory, numbers)
        blocks: list[GuestMemoryBlock] = []
        for number in numbers:
            try:
                state = read_word(f"memory{number}/state", directory)
                can_offline = number in removable and not _is_fixed(directory, number)
            except OSError as error:
                if error.errno in _PASSING:
                    continue
                raise
            blocks.append(
                {"phys-index": number, "online": state == "online", "can-offline": can_offline}
            )
        return blocks

    @command(access="unrestricted", blocking=True, available=_BLOCK_SIZE)
    def guest_set_memory_blocks(
        self, mem_blks: list[GuestMemoryBlock]
    ) -> list[GuestMemoryBlockResponse]:
        """Take memory blocks online or offline.

        mem-blks: the `phys-index` of each block, and whether it should be `online`.
        Returns the result for each block, in the same order.
        """
        return [
            _set_online(block["phys-index"], block["online"]) for block in until_given_up(mem_blks)
        ]

    @command(access="audit", available=_BLOCK_SIZE)
    def guest_get_memory_block_info(self) -> GuestMemoryBlockInfo:
        """Report the size of a memory block in bytes."""
        return {"size": parse_number(read_kept_word(_BLOCK_SIZE), _BLOCK_SIZE, 16)}


def _removable_blocks(directory: int, numbers: list[int]) -> set[int]:
    """The blocks that are marked as removable.

    Since Linux 5.7 either all or none are, so one of them is enough (the kernel's
    Documentation/ABI/testing/sysfs-devices-memory).
    """
    if _kernel_release() >= (5, 7):
        marks = (_is_removable(directory, number) for number in numbers)
        return set(numbers) if next((mark for mark in marks if mark is not None), False) else set()
    return {number for number in numbers if _is_removable(directory, number)}


def _is_removable(directory: int, number: int) -> bool | None:
    """None if the block comes or goes, or the kernel cannot take memory offline at all."""
    try:
        return read_word(f"memory{number}/removable", directory) != "0"
    except OSError as error:
        if error.errno in _PASSING:
            return None
        raise


@cache
def _is_fixed(directory: int, number: int) -> bool:
    """Whether a block can never be taken offline, because it has holes or spans several zones.

    This is decided at boot, hence the cache. Blocks that are added later are in a single zone.
    """
    try:
        return read_word(f"memory{number}/valid_zones", directory) == "none"
    except FileNotFoundError:  # before Linux 3.18
        return False


@cache
def _kernel_release() -> tuple[int, ...]:
    """Version and patch level."""
    return tuple(int(digits) for digits in re.findall("[0-9]+", os.uname().release)[:2])


def _set_online(number: int, online: bool) -> GuestMemoryBlockResponse:
    state = "online" if online else "offline"
    try:
        if _read(f"memory{number}/state") != state:
            with open(f"{_MEMORY}/memory{number}/state", "r+b", buffering=0) as file:
                file.write(state.encode())
    except OSError as error:
        response: GuestMemoryBlockResponseType = "operation-failed"
        if error.errno == errno.ENOENT:
            response = (
                "not-found"
                if not os.path.exists(f"{_MEMORY}/memory{number}")
                else ("operation-not-supported")
            )
        return {"phys-index": number, "response": response, "error-code": error.errno or 0}
    return {"phys-index": number, "response": "success"}


def _read(name: str) -> str:
    return read_word(f"{_MEMORY}/{name}")
