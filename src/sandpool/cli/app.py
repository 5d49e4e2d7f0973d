"""The commands and their options; what each one does is in a module of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import anyio
import typer

from sandpool.cli import exits
from sandpool.cli.commands import image, key, pool, sandbox, service
from sandpool.cli.connection import ApiKey
from sandpool.cli.options import RAW, Env, Json, Timeout, read_script, variables
from sandpool.errors import SandpoolError

if TYPE_CHECKING:
    from sandpool.cli.run import Job

app = typer.Typer(
    name="sandpool",
    help="Warm pools of isolated sandboxes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(pool.app, name="pool")
app.add_typer(sandbox.app, name="sandbox")
app.add_typer(image.app, name="image")
app.add_typer(key.app, name="key")
app.command()(service.deploy)
app.command()(service.check)
app.command()(service.claim)


@app.command()
def doctor(
    as_json: Json = False,
    reap: Annotated[
        bool,
        typer.Option(
            help="Remove the containers, on the Docker Engine that DOCKER_HOST names, and the "
            "half-made images that programs which are gone have left, and say no more."
        ),
    ] = False,
) -> None:
    """Say what this host can do, what is missing, and the command that mends it."""
    from sandpool.cli.doctor import clear, show

    if not reap:
        raise typer.Exit(exits.OK if show(as_json=as_json) else exits.UNUSABLE)
    try:
        anyio.run(lambda: clear(as_json=as_json))
    except SandpoolError as error:
        raise typer.Exit(exits.tell(error)) from error


@app.command()
def demo(
    as_json: Json = False,
    callers: Annotated[int, typer.Option(min=1, max=256, help="Callers at one time.")] = 8,
    cycles: Annotated[int, typer.Option(min=1, max=100_000, help="Leases in all.")] = 400,
    url: Annotated[
        str | None,
        typer.Option(help="Show a pool of services at the server there, and nothing else."),
    ] = None,
    api_key: ApiKey = None,
) -> None:
    """Warm a pool, run real code through it from many callers at once, and say how fast it was.

    Then claim web servers from a pool of them.  Exit code 0: all of it was as it should be.
    """
    from sandpool.cli.demo import show, show_service

    try:
        if url is not None:
            anyio.run(lambda: show_service(url, api_key, as_json=as_json))
        elif not anyio.run(lambda: show(callers=callers, cycles=cycles, as_json=as_json)):
            raise typer.Exit(exits.FAILED)
    except SandpoolError as error:
        exits.fail(error)


@app.command()
def bench(
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY]...", help="What to run, such as B1 and B6; all by default."),
    ] = None,
    as_json: Json = False,
    suite: Annotated[
        Literal["pool", "server", "docker", "all"],
        typer.Option(
            help="Without keys: pools in this process (B1 to B12), a server of its own, or "
            "containers, which need a Docker Engine."
        ),
    ] = "all",
    quick: Annotated[
        bool, typer.Option("--quick", help="Whether all of it runs, in a minute; no figures.")
    ] = False,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="How often everything is repeated.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=5, help="Samples of each latency, in each repeat.")
    ] = None,
    cycles: Annotated[
        int | None, typer.Option(min=10, help="Claims of which none may have too little time left.")
    ] = None,
    callers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Callers at one time in fresh cycles.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="What random arrivals are made from.")] = None,
    soak_minutes: Annotated[
        float | None, typer.Option(min=0.01, help="How long B12 goes on.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A directory for a page with plots, and the results as JSON."),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(help="Measure nothing: make the page in --out from these results."),
    ] = None,
) -> None:
    """Measure what pools cost, against baselines measured in the same run.

    Each benchmark runs in a process of its own. Exit code 1: one of them failed.
    """
    from sandpool.bench.scale import FULL, QUICK
    from sandpool.bench.suite import choose
    from sandpool.cli.bench import make_page, measure, read

    given = {
        "repeats": repeats,
        "samples": samples,
        "cycles": cycles,
        "callers": callers,
        "seed": seed,
        "soak": None if soak_minutes is None else soak_minutes * 60,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    try:
        if results is not None:
            make_page(read(results), out or results.parent)
            return
        scale = (QUICK if quick else FULL).model_copy(update=changes)
        if not measure(choose(suite, keys or []), scale, out=out, as_json=as_json):
            raise typer.Exit(exits.FAILED)
    except SandpoolError as error:
        exits.fail(error)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="SANDPOOL_API_KEY", help="A key that callers must give."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with all settings.")] = None,
    state_dir: key.StateDir = None,
    root_dialect: Annotated[
        str | None, typer.Option(help="A dialect to serve without its prefix, too.")
    ] = None,
    cleanup_interval: Annotated[
        int | None, typer.Option(min=1, help="Seconds between sweeps for forgotten sandboxes.")
    ] = None,
    log_level: Annotated[str, typer.Option(help="critical, error, warning, info, debug.")] = "info",
) -> None:
    """Serve pools and sandboxes over HTTP, to this machine unless told otherwise.

    SIGTERM and SIGINT let requests in progress end.
    """
    from sandpool.cli.serve import run_server

    given = {
        "host": host,
        "port": port,
        "api_key": api_key,
        "state_dir": None if state_dir is None else str(state_dir),
        "root_dialect": root_dialect,
        "cleanup_interval": cleanup_interval,
    }
    try:
        run_server(config, given, log_level)
    except SandpoolError as error:
        exits.fail(error)


@app.command(
    # What comes after the script is the script's, options included.
    context_settings=RAW,
    epilog="sandpool run script.py ARGS · sandpool run -c CODE ARGS · sandpool run -- COMMAND ARGS",
)
def run(
    context: typer.Context,
    code: Annotated[str | None, typer.Option("-c", help="Python code to run.")] = None,
    image: Annotated[
        str, typer.Option(help="`host`, an image's name, or a root directory.")
    ] = "host",
    preload: Annotated[
        list[str] | None, typer.Option(help="A module to import ahead; may be repeated.")
    ] = None,
    env: Env = None,
    timeout: Timeout = None,
    memory_mb: Annotated[int, typer.Option(min=16, help="Memory, in MiB.")] = 512,
    cpus: Annotated[float, typer.Option(min=0.01, help="Processors.")] = 1.0,
    pids: Annotated[int, typer.Option(min=4, help="Processes.")] = 128,
    disk_mb: Annotated[int, typer.Option(min=1, help="Disk, in MiB.")] = 256,
) -> None:
    """Run one script, piece of code or command in a fresh sandbox.

    Input, output and the exit code are the command's own.  Exit code 124: it was killed after
    --timeout; 125: something of sandpool's failed.
    """
    from sandpool.backends.base import BoxSpec, Limits
    from sandpool.cli.run import run_job

    try:
        job = _job(code, list(context.args), variables(env), timeout)
        spec = BoxSpec(
            image=_image(image),
            preload=tuple(preload or ()),
            limits=Limits(memory_mb=memory_mb, cpus=cpus, pids=pids, disk_mb=disk_mb),
        )
        raise typer.Exit(anyio.run(run_job, spec, job))
    except SandpoolError as error:
        exits.fail(error)


def _image(image: str) -> str:
    """Tell a directory from a name: as a shell does, by a slash at its start or after dots."""
    is_path = image.startswith(("/", "./", "../", "~/")) or image in (".", "..")
    return str(Path(image).expanduser().resolve()) if is_path else image


def _job(code: str | None, words: list[str], env: dict[str, str], timeout: float | None) -> Job:
    """Tell a script, code and a command apart."""
    from sandpool.cli.run import Job

    # click removes the `--` that ends our options, so it has to be looked for in what we were
    # really called with; one that comes later is still there.
    is_command = sys.argv.count("--") > words.count("--") and code is None
    if is_command:
        if not words:
            raise typer.BadParameter("give a command after --")
        return Job("command", argv=tuple(words), env=env, timeout=timeout)
    if code is None:
        if not words:
            raise typer.BadParameter("give a script, -c CODE, or -- COMMAND")
        code = read_script(words.pop(0))
    return Job("code", code=code, argv=tuple(words), env=env, timeout=timeout)
