"""The benchmark measures everything, with sizes too small for meaningful numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.bench import __main__ as bench
from tests.bench import agents, figures, measures, rounds
from tests.bench.figures import TIMES, Figure, Goal
from tests.bench.table import Row, Samples, render

OURS_ONLY = {"clients", "clients : client", "growth", "mixed"}


def test_quick_run_measures_every_row(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = []

    def measure(size: measures.Size, python: str, *, with_guest: bool) -> rounds.Outcome:
        outcomes.append(rounds.measure(size, python, with_guest=with_guest))
        return outcomes[-1]

    monkeypatch.setattr(bench, "measure", measure)
    page = tmp_path / "RESULTS.md"
    assert bench.main(["--quick", "--output", str(page)]) == 0

    rows = {(row.figure.key, row.figure.agent): row for row in outcomes[0].rows}
    on_socket = {(f.key, f.agent) for f in figures.FIGURES if not f.key.startswith("guest ")}
    calls = {("call guest-info", "ours"), ("call guest-get-osinfo", "ours")}
    assert on_socket | calls <= rows.keys()
    for (key, _), row in rows.items():
        assert row.ours is not None, key
        assert (row.original is None) == (key in OURS_ONLY), key
        assert (row.older is None) == (key in OURS_ONLY), key
    assert rows["children failed", "ours"].ours == 0

    shown = capsys.readouterr()
    assert shown.out == page.read_text()
    assert "QEMU Guest Agent 7" in shown.out
    assert "QEMU Guest Agent 11" in shown.out
    assert all(row.figure.what in shown.out for row in rows.values())
    assert "bench: round 1 of 1: ping" in shown.err


@pytest.mark.parametrize("simd", [False, True])
def test_pybase64_is_in_the_agent_that_is_to_have_it(tmp_path: Path, simd: bool) -> None:
    python = "/usr/bin/python3"
    contestant = agents.ours("ours", tmp_path / "installed", python, simd=simd)
    with agents.Agent(contestant, tmp_path / "agent") as agent:
        with agent.connect() as client:
            measures.write_throughput(client, str(tmp_path / "file"), measures.MIB, 1)
        assert agent.has_mapped("pybase64") == simd


def test_an_agent_that_does_not_start_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--quick", "--python", "/bin/false"]) == 1
    assert "/bin/false" in capsys.readouterr().err


def test_goal_of_a_ratio() -> None:
    goal = Goal("ratio", "≥", 3)
    assert [goal.is_met(ours, 10.0) for ours in (29.0, 30.0)] == [False, True]
    assert goal.is_met(30.0, None) is None


def test_goal_of_our_own_figure() -> None:
    goal = Goal("ours", "≤", 14)
    assert [goal.is_met(ours, None) for ours in (14.0, 14.1)] == [True, False]


def test_table_has_medians_ratios_and_verdicts() -> None:
    samples = Samples()
    for original, ours in ((10, 1), (40, 30), (20, 10)):
        samples.add("original", {"a": original})
        samples.add("ours", {"a": ours, "b": ours})
    samples.add("older", {"a": 5})
    rows = samples.rows(
        [
            Figure("a", "A", "MB/s", Goal("ratio", "≥", 3)),
            Figure("b", "B", ""),
            Figure("c", "C", ""),
        ]
    )
    assert [(row.original, row.ours) for row in rows] == [(20, 10), (None, 10)]
    assert [cells(line) for line in render(rows).splitlines()[2:]] == [
        [
            "A",
            "20 MB/s",
            "10 MB/s",
            f"0.50{TIMES}",
            f"≥ 3{TIMES}",
            "**no**",
            "5 MB/s",
            f"2.00{TIMES}",
        ],
        ["B", "-", "10", "-", "-", "-", "-", "-"],
    ]


def test_ratio_to_nothing() -> None:
    assert Row(Figure("a", "A", ""), 0.0, 5.0).ratio is None


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_options() -> None:
    options = bench.parse([])
    assert (options.guest, options.python, options.output) == (True, sys.executable, bench.RESULTS)
    options = bench.parse(["--quick"])
    assert (options.guest, options.output) == (False, None)
    assert bench.parse(["--no-guest", "--rounds", "7"]).rounds == 7
    with pytest.raises(SystemExit):
        bench.parse(["--rounds", "0"])
