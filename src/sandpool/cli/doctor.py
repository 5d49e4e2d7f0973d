"""`sandpool doctor`: what this host can do for native sandboxes."""

from __future__ import annotations

import json

import typer

from sandpool.backends.native import doctor


def show(*, as_json: bool) -> bool:
    """Print the report; return whether native sandboxes can run here."""
    report = doctor.examine()
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "ok": report.ok,
                    "problems": report.problems,
                    "remedies": report.remedies,
                    "facts": report.facts,
                },
                indent=2,
            )
        )
        return report.ok
    width = max(map(len, report.facts), default=0)
    for name, fact in report.facts.items():
        typer.echo(f"{name:<{width}}  {fact}")
    typer.echo()
    typer.echo(f"native sandboxes: {'ready' if report.ok else 'not on this host'}")
    for problem in report.problems:
        typer.echo(f"  {'weaker' if report.ok else 'problem'}: {problem}")
    for remedy in report.remedies:
        typer.echo(f"  remedy: {remedy}")
    return report.ok
