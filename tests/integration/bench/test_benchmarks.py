"""Every benchmark runs from its beginning to its end, and says what it is meant to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandpool.bench.report import Outcome
from sandpool.bench.runner import run_here
from sandpool.bench.suite import BENCHMARKS, Benchmark, find
from sandpool.bench.targets import TARGETS
from tests.integration.bench.scales import TINY

pytestmark = [pytest.mark.namespaces, pytest.mark.slow]

SAID = {
    "B1": ["claim at 100/s, hits", "claim at 100/s, misses", "claim at 100/s, served"],
    "B2": ["one at a time", "of which queue", "of which hand-over", "÷ bare fork", "importing ÷"],
    "B3": ["second run in a held sandbox", "runs in 16 held", "cell in a held context"],
    "B4": ["nothing warm", "cold `python3 -I -S` ÷ a miss", "bare fork"],
    "B5": ["1 builder, time to full", "4 builders, builds", "processor time of a cycle"],
    "B6": ["burst of 4 on 2, last served", "distance from theory"],
    "B7": ["claim with 3 parked", "creation with 1 parked", "close of a pool of 3"],
    "B8": ["until the next has a fresh one", "leaks into fresh ones"],
    "B9": ["alone", "A floods the same pool", "A floods another pool", "Jain's index"],
    "B10": ["a fork bomb", "out of memory", "that hangs", "template killed"],
    "B11": ["with 2 in stock, measured", "with 2 in stock, predicted by L", "predicted by μ"],
    "B12": ["memory of this process, drift", "dying control groups", "first output, p99, drift"],
    "HTTP": ["claim over HTTP", "an idle server with 3", "server killed, started again"],
    "services": ["claim of a healthy server", "what the proxy adds", "too little time left"],
    "docker": ["sandpool on Docker: execute_tool_in_pool"],
}
NONE = {
    "B1": ["claim at 100/s, not served"],
    "B2": ["arrivals that were not served"],
    "B8": ["leaks into fresh ones"],
    "B9": ["calls of B that were not served"],
    "B10": ["calls that were not served", "processes left behind"],
    "B12": ["calls and creations that failed"],
    "services": ["claims with too little time left"],
}
"""What is to be nought, however small the run."""


def params() -> list[object]:
    return [
        # Three programs with containers of their own, twice, on a machine that may be busy.
        pytest.param(each, id=each.key, marks=[pytest.mark.docker, pytest.mark.timeout(400)])
        if each.suite == "docker"
        else pytest.param(each, id=each.key)
        for each in BENCHMARKS
    ]


def test_no_benchmark_is_without_a_test() -> None:
    assert set(SAID) == {each.key for each in BENCHMARKS}


@pytest.mark.parametrize("benchmark_", params())
def test_a_benchmark_says_what_it_is_meant_to(benchmark_: Benchmark) -> None:
    found = run_here(benchmark_, TINY)
    assert (found.status, found.reason) == ("done", "")
    figures = found.findings.figures
    names = [figure.name for figure in figures]
    assert [part for part in SAID[found.key] if not any(part in name for name in names)] == []
    assert len(names) == len(set(names))
    assert all(figure.n > 0 for figure in figures)
    assert all(figure.goal is None or figure.goal in TARGETS for figure in figures)
    values = {figure.name: figure.value for figure in figures}
    assert [name for name in NONE.get(found.key, []) if values[name] != 0] == []
    for curve in found.findings.curves:
        assert len(curve.x) == len(curve.y) > 0


def test_stages_are_parts_of_the_whole_way() -> None:
    found = run_here(find("B2"), TINY)
    whole = longest(found, "first output at 100/s, hits, from the intended start, p50")
    stages = ("queue", "hand-over", "run until first byte")
    for stage in stages:
        assert longest(found, f"first output at 100/s, of which {stage}, p50") <= whole


def longest(found: Outcome, name: str) -> float:
    """Return the largest value of a figure in any repeat."""
    (figure,) = [each for each in found.findings.figures if each.name == name]
    return max(figure.repeats)


@pytest.mark.root
def test_root_learns_what_parked_sandboxes_hold() -> None:
    found = run_here(find("B7"), TINY)
    values = {figure.name: figure.value for figure in found.findings.figures}
    for part in ("all told", "resident (PSS)", "written to (private dirty)", "page tables"):
        assert values[f"memory of each of 3 parked, {part}"] > 0
    assert values["memory of each of 3 after a run, all told"] > 0
    assert [curve.x for curve in found.findings.curves] == [(1, 3)]


def test_rivals_that_are_not_here_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = run_here(find("B4"), TINY)
    assert found.status == "done"
    notes = "\n".join(found.findings.notes)
    for program in ("bwrap", "runc", "docker"):
        assert f"{program} is not installed" in notes
