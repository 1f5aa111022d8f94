"""The guest's memory, in the blocks that can be taken online and offline."""

from __future__ import annotations

from collections.abc import Mapping

from qga.client.connection import Connection
from qga.client.results import MemoryBlock, MemoryBlockResponse

PATIENCE = 60.0
"""Seconds; the kernel moves the content of a block first."""


class Memory(Connection):
    def memory_blocks(self) -> list[MemoryBlock]:
        """Each block: whether it is online, and whether it can be taken offline."""
        return self._ask("guest-get-memory-blocks", list[MemoryBlock])

    def memory_block_size(self) -> int:
        """The size of a block in bytes."""
        return self._ask("guest-get-memory-block-info", int, "size")

    def set_memory_blocks(
        self, online: Mapping[int, bool], *, timeout: float = PATIENCE
    ) -> list[MemoryBlockResponse]:
        """Take blocks, by their physical index, online or offline. Returns a result for each."""
        blocks = [{"phys-index": index, "online": wish} for index, wish in online.items()]
        return self._ask_patiently(
            "guest-set-memory-blocks",
            list[MemoryBlockResponse],
            timeout=timeout,
            mem_blks=blocks,
        )
