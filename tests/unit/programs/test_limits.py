"""Limits of programs as the kernel takes them."""

from __future__ import annotations

import resource

import pytest

from qga.programs import cgroup
from qga.programs.limits import MOST, MOST_CPU_SECONDS, Limits, resource_limits


@pytest.fixture
def hard(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The hard limit of the agent."""
    limit = [resource.RLIM_INFINITY]
    monkeypatch.setattr(resource, "getrlimit", lambda _number: (0, limit[0]))
    return limit


@pytest.mark.usefixtures("hard")
@pytest.mark.parametrize("value", [2**63 - 1, 2**63, 2**64 + 4096])
def test_a_limit_that_is_too_large_for_the_kernel_is_its_largest(value: int) -> None:
    limits = Limits(memory=value, file_size=value)
    assert resource_limits(limits, in_cgroup=False) == [
        (number, (2**63 - 1, 2**63 - 1)) for number in (resource.RLIMIT_FSIZE, resource.RLIMIT_AS)
    ]
    assert dict(cgroup._files(limits))["memory.max"] == str(MOST)


@pytest.mark.usefixtures("hard")
@pytest.mark.parametrize(
    ("seconds", "limit"),
    [(5, (5, 6)), (2**55, (MOST_CPU_SECONDS,) * 2), (2**63, (MOST_CPU_SECONDS,) * 2)],
)
def test_a_program_has_a_second_after_sigxcpu(seconds: int, limit: tuple[int, int]) -> None:
    limits = Limits(cpu_seconds=seconds)
    assert resource_limits(limits, in_cgroup=True) == [(resource.RLIMIT_CPU, limit)]


def test_a_limit_above_that_of_the_agent_is_that_of_the_agent(hard: list[int]) -> None:
    hard[0] = 1000
    assert resource_limits(Limits(open_files=1001), in_cgroup=True) == [
        (resource.RLIMIT_NOFILE, (1000, 1000))
    ]
