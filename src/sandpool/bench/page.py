"""A report as a page: the machine, the targets with what was not reached, every figure, plots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sandpool.bench.report import Figure, Outcome, Report
from sandpool.bench.scale import FULL
from sandpool.bench.targets import TARGETS, Judged, judge, verdict

_PLOTS = {
    "distribution.png": "Latencies and the share of calls that each exceeds",
    "rate.png": "Latency of a claim against the rate of arrivals",
    "burst.png": "Waits in a burst, and theory",
    "memory.png": "Memory of each parked sandbox",
}


_LEAST = 1e-3


def number(value: float) -> str:
    """Return a value with three digits that count, and no exponent."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else "0"


def quantity(figure: Figure) -> str:
    """Return a value with its unit."""
    return f"{number(figure.value)} {figure.unit}".rstrip()


def spread(figure: Figure) -> str:
    """Return the least and the most of the repeats; empty where there was one at most."""
    return "" if figure.spread is None else " to ".join(map(number, figure.spread))


def render(report: Report, plots: Iterable[str] = ()) -> str:
    """Return the page in Markdown; `plots` are the files that lie beside it."""
    judged = judge(report)
    parts = [
        _begin(report),
        _machine(report),
        _targets(judged),
        _shortfalls(judged, {outcome.key: outcome for outcome in report.outcomes}),
        *_plots(set(plots)),
        *map(_benchmark, report.outcomes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _begin(report: Report) -> str:
    lines = [
        "# Benchmarks",
        f"Measured on {report.began[:10]} in {report.seconds / 60:.0f} minutes; all, with the "
        "settings, is in [results.json](results.json). A value is the quantile of all samples, or "
        "the median of the repeats; the spread is the least and the most of the repeats. p99.9 is "
        "only there where there are 10,000 samples. Nothing is simulated: isolation and "
        "limits are on, and the load came from the same processors.",
        "To measure again on your machine and make this page: `make bench OUT=docs/benchmarks`.",
    ]
    if report.settings != {name: str(value) for name, value in FULL.model_dump().items()}:
        lines.append(
            "**Not the whole suite's settings: fewer samples, or a shorter time, than its figures "
            "are meant to rest on.**"
        )
    return "\n\n".join(lines)


def _machine(report: Report) -> str:
    return "## The machine\n\n" + _table(("", ""), report.machine.items())


def _targets(judged: Sequence[Judged]) -> str:
    rows = [
        (
            each.target.text,
            each.target.words,
            "" if each.figure is None else quantity(each.figure),
            "" if each.figure is None else spread(each.figure),
            "" if each.figure is None else number(each.figure.n),
            each.verdict,
        )
        for each in judged
    ]
    return "## Targets\n\n" + _table(("", "target", "measured", "spread", "n", ""), rows)


def _shortfalls(judged: Sequence[Judged], outcomes: Mapping[str, Outcome]) -> str:
    """Return what was not reached by how much, and what was not measured and why."""
    lines = [line for each in judged if (line := _shortfall(each, outcomes))]
    return "### Not reached\n\n" + ("\n".join(lines) or "Nothing: every target was reached.")


def _shortfall(judged: Judged, outcomes: Mapping[str, Outcome]) -> str:
    target, figure = judged.target, judged.figure
    if judged.verdict == "reached":
        return ""
    if figure is not None:
        more, less = (figure.value, target.bound)[:: 1 if target.is_ceiling else -1]
        # What is no more than rounding has no ratio to speak of.
        times = f", {number(more / less)} times off" if less > _LEAST else ""
        return f"- {target.text}: {quantity(figure)}, wanted {target.words}{times}."
    outcome = outcomes.get(target.benchmark)
    if outcome is None:
        why = f"{target.benchmark} was not run"
    elif outcome.status == "done":
        why = f"{target.benchmark} ran without it, with these settings or on this machine"
    else:
        why = f"{target.benchmark} {'was ' * (outcome.status == 'left out')}{outcome.status}"
    return f"- {target.text}: not measured, because {why}."


def _plots(there: set[str]) -> list[str]:
    return [f"![{text}]({name})" for name, text in _PLOTS.items() if name in there]


def _benchmark(outcome: Outcome) -> str:
    parts = [f"## {outcome.key}: {outcome.title}"]
    if outcome.status == "done":
        parts.append(f"{outcome.where.capitalize()}, in {outcome.seconds:.0f} s.")
    else:
        parts.append(f"{outcome.status.capitalize()}: {_plain(outcome.reason)}")
    parts += [_plain(note) for note in outcome.findings.notes]
    rows = [
        (
            figure.name,
            quantity(figure),
            spread(figure),
            number(figure.n),
            "" if figure.goal is None else TARGETS[figure.goal].words,
            verdict(figure) or "",
        )
        for figure in outcome.findings.figures
    ]
    if rows:
        parts.append(_table(("", "measured", "spread", "n", "target", ""), rows))
    return "\n\n".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_plain, line)) + " |" for line in lines)


def _plain(text: str) -> str:
    """Return a text that stays one cell, or one paragraph."""
    return " ".join(text.split()).replace("|", "\\|")
