"""`sandpool bench`: run benchmarks, print what they found, and make a page of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from sandpool.backends.native import doctor
from sandpool.bench import page, plots, runner
from sandpool.bench.report import Outcome, Report
from sandpool.bench.scale import Scale
from sandpool.bench.suite import Benchmark
from sandpool.bench.targets import TARGETS, verdict
from sandpool.errors import BackendUnavailable, InvalidSpec

_RESULTS = "results.json"


def measure(
    benchmarks: Sequence[Benchmark], scale: Scale, *, out: Path | None, as_json: bool
) -> bool:
    """Measure, print, and leave a page in `out`; return whether none has failed.

    Raises `BackendUnavailable` where nothing could be measured.
    """
    console = Console(stderr=as_json)
    _check_host(benchmarks)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)

    def begin(benchmark: Benchmark) -> None:
        console.print(f"{benchmark.key}: {benchmark.title}", highlight=False)

    def keep(report: Report) -> None:
        # After each, so that whatever ends the run loses one benchmark at most.
        if out is not None:
            _write(out / _RESULTS, report.model_dump_json(indent=1) + "\n")
        outcome = report.outcomes[-1]
        if outcome.status != "done":
            console.print(f"  {outcome.status}: {outcome.reason}", highlight=False, markup=False)

    report = runner.run(benchmarks, scale, begin=begin, keep=keep)
    if out is not None:
        make_page(report, out)
    if as_json:
        print(report.model_dump_json(indent=1))
    else:
        _print(console, report)
    if all(outcome.status == "left out" for outcome in report.outcomes):
        raise BackendUnavailable("; ".join(outcome.reason for outcome in report.outcomes))
    return all(outcome.status != "failed" for outcome in report.outcomes)


def _check_host(benchmarks: Sequence[Benchmark]) -> None:
    """Say now what every benchmark but those of containers would say by itself."""
    found = doctor.examine()
    if not found.ok and any(benchmark.suite != "docker" for benchmark in benchmarks):
        raise BackendUnavailable("; ".join(found.problems) + ". " + " ".join(found.remedies))


def read(path: Path) -> Report:
    """Return a report that was written before; `InvalidSpec`."""
    try:
        return Report.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InvalidSpec(f"{path} is not a report of benchmarks: {error}") from error


def make_page(report: Report, out: Path) -> None:
    """Write a report as a page, with its plots and results beside it."""
    out.mkdir(parents=True, exist_ok=True)
    _write(out / _RESULTS, report.model_dump_json(indent=1) + "\n")
    names: list[str] = []
    try:
        names = plots.draw(report, out)
    except BackendUnavailable as error:
        print(error, file=sys.stderr)
    _write(out / "index.md", page.render(report, names))
    typer.echo(f"{out / 'index.md'}", err=True)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _print(console: Console, report: Report) -> None:
    for outcome in report.outcomes:
        console.print(_table(outcome))
        for note in outcome.findings.notes:
            console.print(f"  {note}", highlight=False, markup=False)
    for name, fact in report.machine.items():
        console.print(f"  {name}: {fact}", highlight=False, markup=False)


def _table(outcome: Outcome) -> Table:
    found = Table(
        title=f"{outcome.key}: {outcome.title}, {outcome.where}",
        title_justify="left",
        box=None,
        padding=(0, 2),
    )
    for name in ("measured", "", "spread", "n", "target"):
        found.add_column(name, justify="left" if name == "measured" else "right")
    found.add_column("")
    for figure in outcome.findings.figures:
        target = "" if figure.goal is None else TARGETS[figure.goal].words
        found.add_row(
            figure.name,
            page.quantity(figure),
            page.spread(figure),
            page.number(figure.n),
            target,
            verdict(figure) or "",
        )
    return found
