"""The guest's memory, in the blocks that the kernel can take online and offline."""

from __future__ import annotations

import errno
import os
import re
from functools import cache
from typing import Literal, TypedDict

from qga import CommandGroup, NotRequired, UInt64, command, until_given_up

from ._sysfs import keep_open, read_kept_word, read_word

_MEMORY = "/sys/devices/system/memory"

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


def _has_memory_blocks() -> bool:
    return os.path.exists(f"{_MEMORY}/block_size_bytes")


class Memory(CommandGroup):
    """Memory blocks."""

    @command(access="audit", available=_has_memory_blocks)
    def guest_get_memory_blocks(self) -> list[GuestMemoryBlock]:
        """Each memory block: is it online, and may it be taken offline?"""
        folder = keep_open(_MEMORY)
        entries = os.listdir(folder)
        names = [name[len("memory") :] for name in entries if name.startswith("memory")]
        numbers = sorted(int(digits) for digits in names if digits.isdecimal())
        removable = _removable_blocks(folder, numbers)
        blocks: list[GuestMemoryBlock] = []
        for number in numbers:
            try:
                state = read_word(f"memory{number}/state", folder)
            except FileNotFoundError:  # the kernel is about to add it, or to remove it
                continue
            blocks.append(
                {
                    "phys-index": number,
                    "online": state == "online",
                    "can-offline": number in removable,
                }
            )
        return blocks

    @command(access="unrestricted", blocking=True, available=_has_memory_blocks)
    def guest_set_memory_blocks(
        self, mem_blks: list[GuestMemoryBlock]
    ) -> list[GuestMemoryBlockResponse]:
        """Take memory blocks online or offline.

        mem-blks: the blocks by `phys-index`, with the wished `online`.
        Returns how it went for each, in their order.
        """
        return [
            _set_online(wish["phys-index"], wish["online"]) for wish in until_given_up(mem_blks)
        ]

    @command(access="audit", available=_has_memory_blocks)
    def guest_get_memory_block_info(self) -> GuestMemoryBlockInfo:
        """The size of a memory block in bytes."""
        return {"size": int(read_kept_word(f"{_MEMORY}/block_size_bytes"), 16)}


def _removable_blocks(folder: int, numbers: list[int]) -> set[int]:
    """The blocks that can be taken offline.

    Newer kernels say of all that they can if the kernel supports it at all, and then one
    speaks for all (the kernel's Documentation/ABI/testing/sysfs-devices-memory; since Linux 5.7).
    """
    if _kernel_release() >= (5, 7):
        return set(numbers) if numbers and _is_removable(folder, numbers[0]) else set()
    return {number for number in numbers if _is_removable(folder, number)}


def _is_removable(folder: int, number: int) -> bool:
    try:
        return read_word(f"memory{number}/removable", folder) != "0"
    except FileNotFoundError:  # not where the kernel cannot take memory offline at all
        return False


@cache
def _kernel_release() -> tuple[int, ...]:
    """Version and patch level."""
    return tuple(int(digits) for digits in re.findall("[0-9]+", os.uname().release)[:2])


def _set_online(number: int, online: bool) -> GuestMemoryBlockResponse:
    wished = "online" if online else "offline"
    try:
        if _read(f"memory{number}/state") != wished:
            with open(f"{_MEMORY}/memory{number}/state", "r+b", buffering=0) as file:
                file.write(wished.encode())
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
