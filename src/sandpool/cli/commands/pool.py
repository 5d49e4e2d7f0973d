"""`sandpool pool`: a server's pools."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from sandpool.cli.connection import ApiKey, Connection, Url
from sandpool.cli.options import RAW, Env, Json, Timeout, read_script, variables

app = typer.Typer(help="A server's pools.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(metavar="POOL", show_default=False)]
_Image = Annotated[str | None, typer.Option(help="`host`, an image's name, or a root directory.")]
_Backend = Annotated[
    Literal["native", "docker", "auto"] | None,
    typer.Option(help="What makes them; auto: native where the image is there, else Docker."),
]
_Warm = Annotated[int | None, typer.Option(min=0, help="Sandboxes that are kept ready.")]
_Max = Annotated[int | None, typer.Option("--max", min=1, help="The most there are at one time.")]
_Cpus = Annotated[float | None, typer.Option(min=0.01, help="Processors of each.")]
_MemoryMb = Annotated[int | None, typer.Option(min=16, help="Memory of each, in MiB.")]
_DiskMb = Annotated[int | None, typer.Option(min=1, help="Disk of each, in MiB.")]
_Pids = Annotated[int | None, typer.Option(min=4, help="Processes of each.")]
_Preload = Annotated[
    list[str] | None, typer.Option(help="A module to import ahead; may be repeated.")
]
_Lifetime = Annotated[float | None, typer.Option(help="Seconds from creation to the end.")]
_MinRemaining = Annotated[
    float | None, typer.Option(help="Seconds of its life that a claimed one has left.")
]


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


@app.command("list")
def list_pools(as_json: Json = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Print all pools."""
    from sandpool.cli import pools

    Connection(url, api_key).run(lambda manager: pools.show_all(manager, as_json=as_json))


@app.command("show")
def show_pool(name: _Name, as_json: Json = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Print one pool and its definition."""
    from sandpool.cli import pools

    Connection(url, api_key).run(lambda manager: pools.show(manager, name, as_json=as_json))


@app.command("create")
def create_pool(
    name: _Name,
    *,
    image: _Image = None,
    backend: _Backend = None,
    warm: _Warm = None,
    max_: _Max = None,
    cpus: _Cpus = None,
    memory_mb: _MemoryMb = None,
    disk_mb: _DiskMb = None,
    pids: _Pids = None,
    preload: _Preload = None,
    env: Env = None,
    lifetime: _Lifetime = None,
    min_remaining: _MinRemaining = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return once it is full.")] = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Make a pool and begin to fill it.  What these options do not say, `sandpool deploy` can."""
    from sandpool.cli import pools

    fields = _given(
        name=name,
        image=image,
        backend=backend,
        warm=warm,
        max=max_,
        cpus=cpus,
        memory_mb=memory_mb,
        disk_mb=disk_mb,
        pids=pids,
        preload=preload,
        env=variables(env) or None,
        lifetime=lifetime,
        min_remaining=min_remaining,
    )
    Connection(url, api_key).run(lambda manager: pools.create(manager, fields, wait=wait))


@app.command("update")
def update_pool(
    name: _Name,
    *,
    image: _Image = None,
    backend: _Backend = None,
    warm: _Warm = None,
    max_: _Max = None,
    cpus: _Cpus = None,
    memory_mb: _MemoryMb = None,
    disk_mb: _DiskMb = None,
    pids: _Pids = None,
    preload: _Preload = None,
    lifetime: _Lifetime = None,
    min_remaining: _MinRemaining = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Change what is given, and keep the rest; leased sandboxes stay as they are."""
    from sandpool.cli import pools

    changes = _given(
        image=image,
        backend=backend,
        warm=warm,
        max=max_,
        cpus=cpus,
        memory_mb=memory_mb,
        disk_mb=disk_mb,
        pids=pids,
        preload=preload,
        lifetime=lifetime,
        min_remaining=min_remaining,
    )
    Connection(url, api_key).run(lambda manager: pools.update(manager, name, changes))


@app.command("delete")
def delete_pools(
    names: Annotated[list[str], typer.Argument(metavar="POOL...", show_default=False)],
    *,
    force: Annotated[bool, typer.Option("--force", help="End its leases, too.")] = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Remove pools and their sandboxes."""
    from sandpool.cli import pools

    Connection(url, api_key).run(lambda manager: pools.delete(manager, names, force=force))


@app.command("top")
def top(
    name: Annotated[str | None, typer.Argument(metavar="[POOL]", show_default=False)] = None,
    *,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="How many; endless if left out.")
    ] = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Watch pools: stock, leases, hit rate, waits, creations and the last errors."""
    from sandpool.cli import pools

    Connection(url, api_key).run(
        lambda manager: pools.top(manager, name, interval=interval, rounds=rounds)
    )


@app.command(
    "run",
    context_settings=RAW,
    epilog="pool run POOL script.py ARGS · pool run POOL -c CODE ARGS · pool run POOL -- COMMAND",
)
def run_in_pool(
    context: typer.Context,
    name: _Name,
    *,
    env: Env = None,
    timeout: Timeout = None,
    wait: Annotated[
        float | None, typer.Option(help="Seconds to wait for a sandbox; else endless.")
    ] = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Run a script, code or a command in a fresh sandbox of a pool.

    Options stand before the pool's name.  Output and exit code are the command's own; a command,
    set off by --, reads our input, too.
    """
    from sandpool.cli import lending

    code, argv = _program(list(context.args))
    job = lending.Job(code=code, argv=argv, env=variables(env), timeout=timeout)
    Connection(url, api_key).run(lambda manager: lending.run(manager, name, job, wait=wait))


def _program(words: list[str]) -> tuple[str | None, tuple[str, ...]]:
    """Return code and its arguments, or no code and a command."""
    match words:
        case ["-c", code, *rest]:
            return code, tuple(rest)
        case ["--", _, *_]:
            return None, tuple(words[1:])
        case [script, *rest] if not script.startswith("-"):
            return read_script(script), tuple(rest)
        case _:
            raise typer.BadParameter("give a script, -c CODE, or -- COMMAND after the pool's name")
