"""The guest's processors and their load."""

from __future__ import annotations

from collections.abc import Mapping

from qga.client.connection import Connection
from qga.client.results import LoadAverage, Processor, ProcessorTimes

PATIENCE = 60.0
"""Seconds; taking a busy processor offline takes a while."""


class Processors(Connection):
    def processors(self) -> list[Processor]:
        """Each processor: whether it is online, and whether it can be taken offline."""
        return self._ask("guest-get-vcpus", list[Processor])

    def set_processors(self, online: Mapping[int, bool], *, timeout: float = PATIENCE) -> int:
        """Take processors, by their logical id, online or offline.

        Returns how many were changed, in this order, before one failed.
        """
        vcpus = [{"logical-id": number, "online": wish} for number, wish in online.items()]
        return self._ask_patiently("guest-set-vcpus", int, timeout=timeout, vcpus=vcpus)

    def processor_times(self) -> list[ProcessorTimes]:
        """How each online processor has spent its time since boot."""
        return self._ask("guest-get-cpustats", list[ProcessorTimes])

    def load(self) -> LoadAverage:
        """The load averages. Agents before 10.0 do not have this."""
        return self._ask("guest-get-load", LoadAverage)
