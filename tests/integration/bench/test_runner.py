"""What one benchmark does is no other one's loss, and nothing of it is left behind."""

from __future__ import annotations

import os

import pytest

from sandpool.bench import procfs
from sandpool.bench.report import Findings, Report
from sandpool.bench.runner import run, run_apart, run_here
from sandpool.bench.scale import Scale
from sandpool.bench.suite import Benchmark, choose, find
from sandpool.errors import BackendUnavailable, InvalidSpec
from tests.integration.bench.scales import TINY

pytestmark = [pytest.mark.namespaces, pytest.mark.slow]


def a_benchmark(error: Exception, key: str = "B3") -> Benchmark:
    async def measure(scale: Scale) -> Findings:
        raise error

    return Benchmark(key, "A title", "pool", "here", measure)


def test_one_that_cannot_run_here_is_left_out() -> None:
    error = ExceptionGroup("tasks", [ExceptionGroup("more", [BackendUnavailable("no engine")])])
    found = run_here(a_benchmark(error), TINY)
    assert (found.status, found.reason) == ("left out", "no engine")


def test_one_that_raises_has_failed_and_says_what(capsys: pytest.CaptureFixture[str]) -> None:
    found = run_here(a_benchmark(ZeroDivisionError("by zero")), TINY)
    assert (found.status, found.reason) == ("failed", "ZeroDivisionError: by zero")
    assert "Traceback" in capsys.readouterr().err


def test_the_others_are_measured_and_kept_one_by_one() -> None:
    kept: list[Report] = []
    unknown = a_benchmark(ValueError(), key="no such key")  # its process cannot find it
    report = run([unknown, find("B3")], TINY, keep=kept.append)
    assert [outcome.status for outcome in report.outcomes] == ["failed", "done"]
    assert "no such key" in report.outcomes[0].reason
    assert [len(each.outcomes) for each in kept] == [1, 2]
    assert kept[-1] == report
    assert report.machine["kernel"]
    assert report.settings["seed"] == str(TINY.seed)


def test_one_that_does_not_end_is_ended_with_all_that_it_has_started() -> None:
    endless = TINY.model_copy(update={"soak": 3_600.0})
    before = set(procfs.below(os.getpid()))
    found = run_apart(find("B12"), endless, limit=2 - endless.soak)
    assert found.status == "failed"
    assert "it took more than" in found.reason
    assert set(procfs.below(os.getpid())) <= before


def test_benchmarks_are_chosen_by_key_or_by_suite() -> None:
    assert [each.key for each in choose("all", ["b6", "HTTP"])] == ["B6", "HTTP"]
    assert [each.key for each in choose("server", [])] == ["HTTP", "services"]
    assert len(choose("all", [])) == len(choose("pool", [])) + 3
    with pytest.raises(InvalidSpec, match="no benchmark 'b99'"):
        choose("all", ["B99"])
