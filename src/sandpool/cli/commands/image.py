"""`sandpool image`: what a server's sandboxes can be made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from sandpool.cli import exits
from sandpool.cli.connection import ApiKey, Connection, Url
from sandpool.cli.options import Json
from sandpool.cli.output import print_json, print_table

if TYPE_CHECKING:
    from sandpool.client import HttpSandboxManager

app = typer.Typer(help="What a server's sandboxes can be made from.", no_args_is_help=True)


# With a callback `list` is a word of its own, although there is no other command.
app.callback()(lambda: None)


@app.command("list")
def list_images(as_json: Json = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Print the images that have a name, and the pools that use each."""

    async def show(manager: HttpSandboxManager) -> int:
        found = await manager.list_images()
        if as_json:
            print_json([image.model_dump(mode="json") for image in found])
        else:
            rows = ((image.name, ", ".join(image.pools) or None) for image in found)
            print_table(("image", "pools"), rows)
        return exits.OK

    Connection(url, api_key).run(show)
