"""`sandpool image`: the images of this machine, and those that a server has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from sandpool import config as settings
from sandpool.cli import exits
from sandpool.cli.connection import ApiKey, Connection, Url
from sandpool.cli.options import Json
from sandpool.cli.output import print_json, print_table
from sandpool.errors import SandpoolError

if TYPE_CHECKING:
    from sandpool.client import HttpSandboxManager

app = typer.Typer(help="What sandboxes can be made from.", no_args_is_help=True)

_Name = Annotated[str | None, typer.Option(help="What it is to be called; by default as it is.")]
_Platform = Annotated[str | None, typer.Option(help="Such as linux/arm64; by default ours.")]


@app.command("list")
def list_images(as_json: Json = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Print the images in this machine's store, or with --url those of a server.

    A server's are those that have a name, with the pools that use each.
    """
    if url is None and settings.server_url() is None:
        from sandpool.cli.images import show_stored

        show_stored(as_json=as_json)
        return

    async def show(manager: HttpSandboxManager) -> int:
        found = await manager.list_images()
        if as_json:
            print_json([image.model_dump(mode="json") for image in found])
        else:
            rows = ((image.name, ", ".join(image.pools) or None, image.pull) for image in found)
            print_table(("image", "pools", "pulled so far"), rows)
        return exits.OK

    Connection(url, api_key).run(show)


@app.command("add", epilog="sandpool image add docker:python:3.11-slim")
def add_image(
    source: Annotated[
        str,
        typer.Argument(
            help="A root directory, a tar of one, an OCI layout or archive, what `docker save` "
            "writes, or docker:NAME for an image of this machine's Docker Engine."
        ),
    ],
    name: _Name = None,
    platform: _Platform = None,
) -> None:
    """Unpack an image to this machine's store."""
    from sandpool.cli.images import add

    try:
        add(source, name, platform)
    except SandpoolError as error:
        raise typer.Exit(exits.tell(error)) from error


@app.command("pull")
def pull_image(
    reference: Annotated[str, typer.Argument(help="Such as python:3.11-slim.")],
    name: _Name = None,
    platform: _Platform = None,
    plain_http: Annotated[
        bool, typer.Option(help="Do without HTTPS, as on loopback is done anyway.")
    ] = False,
) -> None:
    """Get an image from a registry to this machine's store."""
    from sandpool.cli.images import pull

    try:
        pull(reference, name, platform, plain_http=plain_http)
    except SandpoolError as error:
        raise typer.Exit(exits.tell(error)) from error


@app.command("rm")
def remove_images(names: Annotated[list[str], typer.Argument(help="The images' names.")]) -> None:
    """Remove images from this machine's store, and what no other image has."""
    from sandpool.cli.images import remove

    raise typer.Exit(anyio.run(remove, names))


@app.command("prune")
def prune_images() -> None:
    """Remove what belongs to no image, such as what was left when its removal was interrupted."""
    from sandpool.cli.images import prune

    try:
        prune()
    except SandpoolError as error:
        raise typer.Exit(exits.tell(error)) from error
