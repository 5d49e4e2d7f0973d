"""Options that several commands have, and how their values are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Env = Annotated[list[str] | None, typer.Option(help="NAME=VALUE to set inside; may be repeated.")]
Timeout = Annotated[float | None, typer.Option(help="Seconds until it is killed.")]

RAW = {"allow_extra_args": True, "allow_interspersed_args": False}
"""For a command whose last words are another's, options included."""


def variables(pairs: Sequence[str] | None) -> dict[str, str]:
    """Return what `--env` has set."""
    found: dict[str, str] = {}
    for pair in pairs or ():
        name, separator, value = pair.partition("=")
        if not name or not separator:
            raise typer.BadParameter(f"--env {pair!r} is not NAME=VALUE")
        found[name] = value
    return found


def read_script(path: str) -> str:
    """Return a script's text."""
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}") from error
