"""What a benchmark has found: lines with a value, and for some what it is to reach."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the report; `target` is what `value` is to reach, where there is one."""

    name: str
    value: float
    unit: str
    target: str = ""
    is_reached: bool | None = None


def compare(
    name: str, value: float, target: str, holds: Callable[[float], bool], unit: str = "times"
) -> Result:
    """Return a line that has a target."""
    return Result(name, round(value, 2), unit, target, holds(value))


def ms(seconds: float) -> float:
    """Return milliseconds, to two places."""
    return round(seconds * 1000, 2)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of all values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def table(results: Sequence[Result]) -> Table:
    """Return the lines for people."""
    found = Table(box=None, padding=(0, 2))
    found.add_column("measured")
    found.add_column("", justify="right")
    found.add_column("target", justify="right")
    found.add_column("")
    for result in results:
        verdict = {True: "reached", False: "missed", None: ""}[result.is_reached]
        found.add_row(result.name, f"{result.value:g} {result.unit}", result.target, verdict)
    return found
