"""The guest's processors and their load."""

from __future__ import annotations

from collections.abc import Mapping

from qga.client.connection import Connection
from qga.client.results import LoadAverage, Processor, ProcessorTimes

PATIENCE = 60.0
"""Seconds: a busy processor is not taken offline at once."""


class Processors(Connection):
    def processors(self) -> list[Processor]:
        """Each processor: is it online, and may it be taken offline?"""
        return self._ask("guest-get-vcpus", list[Processor])

    def set_processors(self, online: Mapping[int, bool], *, timeout: float = PATIENCE) -> int:
        """Take processors, by their logical id, online or offline.

        Returns how many were done, in their order, before the first that failed.
        """
        vcpus = [{"logical-id": number, "online": wish} for number, wish in online.items()]
        return self._ask_patiently("guest-set-vcpus", int, timeout=timeout, vcpus=vcpus)

    def processor_times(self) -> list[ProcessorTimes]:
        """What each online processor has done since the start."""
        return self._ask("guest-get-cpustats", list[ProcessorTimes])

    def load(self) -> LoadAverage:
        """The load averages. Agents before 10.0 do not have this."""
        return self._ask("guest-get-load", LoadAverage)
