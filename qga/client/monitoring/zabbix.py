"""Guests for Zabbix: low-level discovery, and their readings as values of items."""

from __future__ import annotations

from typing import Any

from qga.client.monitoring.metrics import METRICS, Readings

DISCOVERED = {
    "filesystems": ("filesystem_size_bytes", ("{#FSDEVICE}", "{#FSNAME}", "{#FSTYPE}")),
    "disks": ("disk_read_bytes_total", ("{#DEVNAME}",)),
    "interfaces": ("network_receive_bytes_total", ("{#IFNAME}",)),
}
"""What a guest has of a kind: the metric that each of them has, and a macro for each of its labels.
The names of the macros are those of Zabbix's own templates."""

LABELS = {metric.name: metric.labels for metric in METRICS}

Entities = list[dict[str, str]]


def discovered_guests(names: list[str]) -> Entities:
    return [{"{#GUEST}": name} for name in names]


def discovered(readings: Readings, kind: str) -> Entities:
    """The entities of a kind, one of DISCOVERED."""
    metric, macros = DISCOVERED[kind]
    return [dict(zip(macros, labels)) for name, *labels in readings if name == metric]


def all_values(readings: Readings) -> list[dict[str, Any]]:
    """Every reading with its name and labels, for items that depend on one."""
    return [
        {"name": name, "labels": dict(zip(LABELS[name], labels)), "value": value}
        for (name, *labels), value in readings.items()
    ]


def value_of(readings: Readings, metric: str, labels: list[str]) -> float:
    """The only reading of a metric that has all of these labels, in any order.

    Raises LookupError, which says what is wrong, if there is none or more than one.
    """
    if metric not in LABELS:
        raise LookupError(f"there is no metric '{metric}'")
    of_it = {key[1:]: value for key, value in readings.items() if key[0] == metric}
    fit = [value for key, value in of_it.items() if set(labels) <= set(key)]
    if len(fit) == 1:
        return fit[0]
    names = f"{metric} {' '.join(labels)}".strip()
    if not fit:
        raise LookupError(f"the guest does not report {names}")
    raise LookupError(f"several values are called '{names}'; add {' and '.join(LABELS[metric])}")
