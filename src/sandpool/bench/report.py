"""What the benchmarks have found, as values that go to JSON and back."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PlainSerializer

from sandpool.models import Value

Status = Literal["done", "failed", "left out"]
Plot = Literal["distribution", "rate", "burst", "memory"]
"""What a curve shows: latencies and their shares; latency against rate; waits in the order of
callers; memory against the number of sandboxes."""


Number = Annotated[float, PlainSerializer(lambda value: float(f"{value:.6g}"), when_used="json")]
"""A float that is kept with as many digits as a measurement has."""


class Figure(Value):
    """One number, with what it rests on."""

    name: str
    value: Number
    unit: str
    n: int
    """Samples behind it."""
    repeats: tuple[Number, ...] = ()
    """The same of each repeat by itself; empty where it was measured once."""
    goal: str | None = None
    """The key of the target that it is held to (`targets`)."""

    @property
    def spread(self) -> tuple[float, float] | None:
        """The least and the most of the repeats; None where there was one at most."""
        return (min(self.repeats), max(self.repeats)) if len(self.repeats) > 1 else None


class Curve(Value):
    """Points that belong together, for a plot."""

    plot: Plot
    label: str
    x: tuple[Number, ...]
    y: tuple[Number, ...]
    is_theory: bool = False


class Findings(Value):
    """What one benchmark has found."""

    figures: tuple[Figure, ...] = ()
    curves: tuple[Curve, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader must know, such as what was left out and why."""


class Outcome(Value):
    """How one benchmark went."""

    key: str
    """`B1` to `B12`, and what lies beyond them by a word."""
    title: str
    where: str
    """Between whom the calls went: in this process, or over HTTP."""
    status: Status
    reason: str = ""
    """Why it failed or was left out."""
    seconds: Number = 0.0
    findings: Findings = Findings()


class Report(Value):
    """One run of the suite."""

    version: Literal[1] = 1
    began: str
    """A UTC time stamp."""
    seconds: Number
    machine: dict[str, str]
    settings: dict[str, str]
    outcomes: tuple[Outcome, ...] = Field(default=())

    def figures(self) -> list[Figure]:
        """Return the figures of all benchmarks."""
        return [figure for outcome in self.outcomes for figure in outcome.findings.figures]

    def curves(self, plot: Plot) -> list[Curve]:
        """Return the curves of all benchmarks that belong to one plot."""
        return [
            curve
            for outcome in self.outcomes
            for curve in outcome.findings.curves
            if curve.plot == plot
        ]
