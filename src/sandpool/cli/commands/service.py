"""`sandpool deploy`, `check` and `claim`: pools of services, from their definitions to a URL."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sandpool.cli.connection import ApiKey, Connection, Url
from sandpool.cli.options import Json


def deploy(
    path: Annotated[Path, typer.Argument(metavar="FILE.toml", show_default=False)],
    *,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds until each pool must be full.")
    ] = None,
    as_json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Have every pool of a file as it is defined there, and full; again changes nothing."""
    from sandpool.cli import services

    Connection(url, api_key).run(
        lambda manager: services.deploy_file(manager, path, timeout=timeout, as_json=as_json)
    )


def check(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[POOL]", help="May be left out if there is only one."),
    ] = None,
    *,
    check_health: Annotated[
        bool, typer.Option(help="Look at each sandbox; else say what is known.")
    ] = True,
    as_json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Print what is ready in a pool, taking nothing.

    Exit code 0: it is full and healthy; 1: it is not.
    """
    from sandpool.cli import services

    Connection(url, api_key).run(
        lambda manager: services.check(manager, name, check_health=check_health, as_json=as_json)
    )


def claim(
    name: Annotated[str, typer.Argument(metavar="POOL", show_default=False)],
    *,
    check_health: Annotated[
        bool | None, typer.Option(help="Look at it first.  [default: as the pool's definition]")
    ] = None,
    min_remaining: Annotated[
        float | None, typer.Option(min=0, help="Seconds that it must have left.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds to wait; by default as the pool says.")
    ] = None,
    as_json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Take a sandbox for good and print its URL, and nothing else.

    Exit code 3: there was none in time.
    """
    from sandpool.cli import services

    Connection(url, api_key).run(
        lambda manager: services.claim(
            manager,
            name,
            check_health=check_health,
            min_remaining=min_remaining,
            timeout=timeout,
            as_json=as_json,
        )
    )
