"""Exit codes of the command line, and the one way in which it ends with an error of ours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import NoReturn

import typer

from sandpool.errors import AcquireTimeout, NoCapacity, RateLimited, SandpoolError

OK = 0
UNUSABLE = 1
"""`doctor`: this host cannot run native sandboxes."""
USAGE = 2
FAILED = 1
"""A command that uses a server: it could not do what was asked for, and says why."""
NOT_IN_TIME = 3
"""The same, but it may do later: nothing was free in time, or too much was asked for at once."""
TIMED_OUT = 124
"""`run`: the command was killed after `--timeout`; the same as of timeout(1)."""
OURS = 125
"""Something of ours failed, not the command; the same as of `docker run`."""


def tell(error: SandpoolError) -> int:
    """Say what a server would not do, and return the exit code that goes with it."""
    typer.echo(f"sandpool: {error}", err=True)
    is_passing = isinstance(error, AcquireTimeout | NoCapacity | RateLimited)
    return NOT_IN_TIME if is_passing else FAILED


async def each(names: Iterable[str], act: Callable[[str], Awaitable[object]]) -> int:
    """Act on each of these and print its name; what fails is told, and keeps none from its turn."""
    code = OK
    for name in names:
        try:
            await act(name)
        except SandpoolError as error:
            code = tell(error)
        else:
            print(name)
    return code


def fail(error: SandpoolError) -> NoReturn:
    """Say what is wrong in one sentence, and end."""
    typer.echo(f"sandpool: {error}", err=True)
    raise typer.Exit(OURS)
