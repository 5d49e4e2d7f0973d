"""`sandpool sandbox`: a server's sandboxes."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sandpool.cli.connection import ApiKey, Connection, Url
from sandpool.cli.options import RAW, Env, Json, Timeout, variables
from sandpool.models import SandboxStatus

app = typer.Typer(help="A server's sandboxes.", no_args_is_help=True)

_Id = Annotated[str, typer.Argument(metavar="SANDBOX", show_default=False)]
_Ids = Annotated[list[str], typer.Argument(metavar="SANDBOX...", show_default=False)]


@app.command("list")
def list_sandboxes(
    *,
    status: Annotated[SandboxStatus | None, typer.Option(help="Only those with it.")] = None,
    only_ids: Annotated[bool, typer.Option("--quiet", "-q", help="Print ids only.")] = False,
    as_json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Print sandboxes."""
    from sandpool.cli import sandboxes

    Connection(url, api_key).run(
        lambda manager: sandboxes.show_all(manager, status, as_json=as_json, only_ids=only_ids)
    )


@app.command("show")
def show_sandbox(sandbox_id: _Id, url: Url = None, api_key: ApiKey = None) -> None:
    """Print one sandbox as JSON."""
    from sandpool.cli import sandboxes

    Connection(url, api_key).run(lambda manager: sandboxes.show(manager, sandbox_id))


@app.command("create")
def create_sandbox(
    *,
    sandbox_id: Annotated[str | None, typer.Option("--id", help="Made up if left out.")] = None,
    image: Annotated[str, typer.Option(help="`host`, an image's name, or a root.")] = "host",
    memory_mb: Annotated[int | None, typer.Option(min=16, help="Memory, in MiB.")] = None,
    cpus: Annotated[float | None, typer.Option(min=0.01, help="Processors.")] = None,
    env: Env = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Make a sandbox that belongs to no pool, and print its id."""
    from sandpool.cli import sandboxes

    limits = {"memory_mb": memory_mb, "cpus": cpus}
    config: dict[str, Any] = {
        "image": image,
        "env_vars": variables(env),
        "resource_limits": {name: value for name, value in limits.items() if value is not None},
    }
    Connection(url, api_key).run(lambda manager: sandboxes.create(manager, sandbox_id, config))


@app.command("exec", context_settings=RAW)
def execute(
    context: typer.Context,
    sandbox_id: _Id,
    *,
    env: Env = None,
    cwd: Annotated[str | None, typer.Option(help="Where it runs.")] = None,
    timeout: Timeout = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Run a command in a sandbox; input, output and exit code are its own."""
    from sandpool.cli import sandboxes

    words = _command(context)
    if not words:
        raise typer.BadParameter("give a command after the sandbox's id")
    Connection(url, api_key).run(
        lambda manager: sandboxes.run(
            manager, sandbox_id, words, env=variables(env), cwd=cwd, timeout=timeout
        )
    )


@app.command("shell", context_settings=RAW)
def open_shell(
    context: typer.Context, sandbox_id: _Id, url: Url = None, api_key: ApiKey = None
) -> None:
    """Open a shell, or the command after the id, in a sandbox on this terminal."""
    from sandpool.cli import sandboxes

    words = _command(context) or ("/bin/sh",)
    Connection(url, api_key).run(lambda manager: sandboxes.shell(manager, sandbox_id, words))


@app.command("cp")
def copy(
    source: Annotated[str, typer.Argument(show_default=False)],
    target: Annotated[str, typer.Argument(show_default=False)],
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Copy a file or a directory; one of the two is SANDBOX:PATH, the other here (- for a pipe)."""
    from sandpool.cli import copy as copying

    ends = copying.Place.parse(source), copying.Place.parse(target)
    Connection(url, api_key).run(lambda manager: copying.copy(manager, *ends))


@app.command("logs")
def show_logs(sandbox_id: _Id, url: Url = None, api_key: ApiKey = None) -> None:
    """Print the last 16 KiB that the server of a service pool has said in it."""
    from sandpool.cli import sandboxes

    Connection(url, api_key).run(lambda manager: sandboxes.logs(manager, sandbox_id))


@app.command("url")
def show_url(
    sandbox_id: _Id,
    port: Annotated[int, typer.Argument(min=1, max=65_535, show_default=False)],
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Print the address of one of its ports."""
    from sandpool.cli import sandboxes

    Connection(url, api_key).run(lambda manager: sandboxes.url(manager, sandbox_id, port))


@app.command("extend")
def extend(
    sandbox_id: _Id,
    seconds: Annotated[float, typer.Argument(show_default=False)],
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Let a claimed sandbox end so many seconds from now, or with its own life if sooner."""
    from sandpool.cli import sandboxes

    Connection(url, api_key).run(lambda manager: sandboxes.extend(manager, sandbox_id, seconds))


@app.command("stop")
def stop(sandbox_ids: _Ids, url: Url = None, api_key: ApiKey = None) -> None:
    """End the processes of sandboxes and keep their records."""
    from sandpool.cli import sandboxes

    Connection(url, api_key).run(lambda manager: sandboxes.stop(manager, sandbox_ids))


@app.command("rm")
def delete(sandbox_ids: _Ids, url: Url = None, api_key: ApiKey = None) -> None:
    """End sandboxes and forget them."""
    from sandpool.cli import sandboxes

    Connection(url, api_key).run(lambda manager: sandboxes.delete(manager, sandbox_ids))


def _command(context: typer.Context) -> tuple[str, ...]:
    words = tuple(context.args)
    return words[1:] if words[:1] == ("--",) else words
