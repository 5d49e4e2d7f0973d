"""`sandpool key`: who may use a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sandpool import config
from sandpool.cli import exits
from sandpool.cli.options import Json
from sandpool.errors import SandpoolError

app = typer.Typer(help="Who may use a server.", no_args_is_help=True)

StateDir = Annotated[
    Path | None,
    typer.Option(
        help="Where pools and keys are remembered; by default the user's state directory."
    ),
]


@app.command("add")
def add_key(
    name: Annotated[str, typer.Argument(help="What you will know it by.")],
    namespace: Annotated[str, typer.Option(help="Whose things it may see and touch.")] = "default",
    state_dir: StateDir = None,
) -> None:
    """Make a key and print it: this once, for only its hash is kept.  A running server takes it."""
    from sandpool.cli import serve

    try:
        print(serve.add_key(state_dir or config.state_dir(), name, namespace))
    except SandpoolError as error:
        exits.fail(error)


@app.command("list")
def list_keys(as_json: Json = False, state_dir: StateDir = None) -> None:
    """Print the names of the keys."""
    from sandpool.cli import serve

    try:
        serve.show_keys(state_dir or config.state_dir(), as_json=as_json)
    except SandpoolError as error:
        exits.fail(error)


@app.command("revoke")
def revoke_key(names: list[str], state_dir: StateDir = None) -> None:
    """Forget keys, at once also in a running server."""
    from sandpool.cli import serve

    try:
        serve.revoke_key(state_dir or config.state_dir(), names)
    except SandpoolError as error:
        exits.fail(error)
