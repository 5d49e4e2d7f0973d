"""`sandpool doctor`: what this host can do for native sandboxes, and what others left on it."""

from __future__ import annotations

import json

import typer

from sandpool import config
from sandpool.backends.docker import reap
from sandpool.backends.native import doctor
from sandpool.cli.output import print_json
from sandpool.images import ImageStore


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


async def clear(*, as_json: bool) -> None:
    """Remove what programs that are gone have left, and nothing of a living one's.

    Raises `BackendUnavailable` where no Docker Engine answers.
    """
    store = ImageStore(config.image_store())
    if store.path.exists():
        store.collect()
    removed = await reap()
    if as_json:
        print_json({"containers": removed})
    else:
        typer.echo(f"removed {len(removed)} containers")
