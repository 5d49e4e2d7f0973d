"""A page says everything that its report says, and what was not reached."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.bench.page import number, render, spread
from sandpool.bench.report import Curve, Figure, Findings, Outcome, Report, Status
from sandpool.bench.scale import FULL, QUICK, Scale
from sandpool.bench.suite import BENCHMARKS
from sandpool.bench.targets import TARGETS, judge, verdict

numbers = st.floats(-1e7, 1e7, allow_nan=False)
texts = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)
figures = st.builds(
    Figure,
    name=texts,
    value=numbers,
    unit=st.sampled_from(["ms", "/s", ""]),
    n=st.integers(0, 10**6),
    repeats=st.lists(numbers, max_size=4).map(tuple),
    goal=st.none() | st.sampled_from(sorted(TARGETS)),
)
findings = st.builds(
    Findings,
    figures=st.lists(figures, max_size=4).map(tuple),
    curves=st.just((Curve(plot="burst", label="x", x=(1.0,), y=(2.0,)),)),
    notes=st.lists(texts, max_size=2).map(tuple),
)
outcomes = st.builds(
    Outcome,
    key=st.sampled_from([each.key for each in BENCHMARKS]),
    title=texts,
    where=texts,
    status=st.sampled_from(["done", "failed", "left out"]),
    reason=texts,
    seconds=st.floats(0, 100),
    findings=findings,
)


def report(*found: Outcome, scale: Scale = FULL) -> Report:
    return Report(
        began="2026-01-02T03:04:05+00:00",
        seconds=60,
        machine={"kernel": "6.18"},
        settings={name: str(value) for name, value in scale.model_dump().items()},
        outcomes=found,
    )


def outcome(*found: Figure, status: Status = "done", key: str = "B1", reason: str = "") -> Outcome:
    return Outcome(
        key=key,
        title="a title",
        where="here",
        status=status,
        reason=reason,
        findings=Findings(figures=found),
    )


def figure(goal: str, value: float) -> Figure:
    return Figure(name="x", value=value, unit="ms", n=9, goal=goal)


reports = st.lists(outcomes, max_size=4).map(lambda found: report(*found))


@given(reports)
def test_a_report_survives_its_json_but_for_digits_that_nobody_measures(found: Report) -> None:
    text = found.model_dump_json()
    again = Report.model_validate_json(text)
    assert again.model_dump_json() == text
    values = [figure.value for figure in found.figures()]
    assert [figure.value for figure in again.figures()] == pytest.approx(values, rel=1e-5)
    assert render(again) == render(Report.model_validate_json(again.model_dump_json()))


@given(reports)
def test_every_row_of_a_table_has_as_many_cells_as_its_head(found: Report) -> None:
    width = 0
    for line in render(found).splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        cells = len(re.split(r"(?<!\\)\|", line))
        width = width or cells
        assert cells == width, line


@given(reports)
def test_every_figure_and_every_target_is_on_the_page(found: Report) -> None:
    page = render(found)
    for each in found.figures():
        assert each.name.replace("|", "\\|") in page
    for target in TARGETS.values():
        assert target.text in page


@given(reports)
def test_what_was_not_reached_is_listed_and_nothing_else(found: Report) -> None:
    lines = render(found).partition("### Not reached")[2].partition("\n## ")[0].splitlines()
    listed = [line for line in lines if line.startswith("- ")]
    judged = judge(found)
    assert len(listed) == sum(each.verdict != "reached" for each in judged)
    assert [each.target.key for each in judged] == list(TARGETS)


def test_the_page_in_the_documentation_is_that_of_the_results_beside_it() -> None:
    place = Path(__file__).parents[3] / "docs" / "benchmarks"
    found = Report.model_validate_json((place / "results.json").read_bytes())
    pictures = {path.name: path.stat().st_size for path in place.glob("*.png")}
    assert (place / "index.md").read_text() == render(found, pictures)
    assert max(pictures.values()) <= 60_000


def test_a_miss_says_by_how_much() -> None:
    page = render(report(outcome(figure("hand-over-p50", 0.25))))
    line = "hand-over of a warm sandbox at 100/s, p50: 0.25 ms, wanted ≤ 0.1 ms, 2.5 times off."
    assert f"- {line}" in page


def test_what_was_not_measured_says_why() -> None:
    page = render(
        report(
            outcome(status="failed", key="B5", reason="it broke"),
            outcome(status="left out", key="docker", reason="no engine"),
            outcome(key="B3"),
        )
    )
    assert "- fresh cycles a second, for 60 s: not measured, because B5 failed." in page
    assert "p50: not measured, because docker was left out." in page
    assert "second run in a held sandbox, p50: not measured, because B3 ran without it" in page
    assert "not measured, because B7 was not run." in page
    assert "Failed: it broke" in page
    assert "Left out: no engine" in page


def test_a_page_of_another_scale_than_the_whole_suites_says_so() -> None:
    warning = "Not the whole suite's settings"
    assert warning not in render(report())
    assert warning in render(report(scale=QUICK))


def test_only_plots_that_are_there_are_shown() -> None:
    assert "](" not in render(report(), []).replace("](results.json)", "")
    assert "](burst.png)" in render(report(), ["burst.png"])


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_a_target_is_reached_at_its_bound_and_missed_beyond(target: object) -> None:
    known = next(each for each in TARGETS.values() if each is target)
    beyond = 1 if known.is_ceiling else -1
    assert verdict(figure(known.key, known.bound)) == "reached"
    assert verdict(figure(known.key, known.bound + beyond)) == "missed"


def test_every_target_belongs_to_a_benchmark() -> None:
    assert {each.benchmark for each in TARGETS.values()} <= {each.key for each in BENCHMARKS}


@given(numbers)
def test_a_number_is_read_back_to_within_its_three_digits(value: float) -> None:
    text = number(value)
    assert "e" not in text
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.006, abs=0.001)


def test_a_spread_needs_two_repeats() -> None:
    one = Figure(name="x", value=1, unit="", n=1, repeats=(1.0,))
    assert spread(one) == ""
    assert spread(one.model_copy(update={"repeats": (3.0, 1.0, 2.0)})) == "1 to 3"
