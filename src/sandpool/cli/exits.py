"""Exit codes of the command line, and the one way in which it ends with an error of ours."""

from __future__ import annotations

from typing import NoReturn

import typer

from sandpool.errors import SandpoolError

OK = 0
UNUSABLE = 1
"""`doctor`: this host cannot run native sandboxes."""
USAGE = 2
TIMED_OUT = 124
"""`run`: the command was killed after `--timeout`; the same as of timeout(1)."""
OURS = 125
"""Something of ours failed, not the command; the same as of `docker run`."""


def fail(error: SandpoolError) -> NoReturn:
    """Say what is wrong in one sentence, and end."""
    typer.echo(f"sandpool: {error}", err=True)
    raise typer.Exit(OURS)
