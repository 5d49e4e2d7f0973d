"""The commands and their options; what each one does is in a module of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from sandpool.cli import exits
from sandpool.errors import SandpoolError

if TYPE_CHECKING:
    from sandpool.cli.run import Job

app = typer.Typer(
    name="sandpool",
    help="Warm pools of isolated sandboxes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command()
def doctor(as_json: _Json = False) -> None:
    """Say what this host can do, what is missing, and the command that mends it."""
    from sandpool.cli.doctor import show

    raise typer.Exit(exits.OK if show(as_json=as_json) else exits.UNUSABLE)


@app.command()
def demo(
    as_json: _Json = False,
    callers: Annotated[int, typer.Option(min=1, max=256, help="Callers at one time.")] = 8,
    cycles: Annotated[int, typer.Option(min=1, max=100_000, help="Leases in all.")] = 400,
) -> None:
    """Warm a pool, run real code through it from many callers at once, and say how fast it was."""
    from sandpool.cli.demo import show

    try:
        anyio.run(lambda: show(callers=callers, cycles=cycles, as_json=as_json))
    except SandpoolError as error:
        exits.fail(error)


@app.command()
def bench(
    as_json: _Json = False,
    samples: Annotated[int, typer.Option(min=5, help="Samples of each latency.")] = 100,
    cycles: Annotated[int, typer.Option(min=10, help="Leases in the throughput run.")] = 600,
    callers: Annotated[int, typer.Option(min=1, max=256, help="Callers at one time.")] = 8,
) -> None:
    """Measure what a pool costs, against baselines measured in the same run."""
    from sandpool.cli.bench import show

    try:
        anyio.run(lambda: show(samples=samples, cycles=cycles, callers=callers, as_json=as_json))
    except SandpoolError as error:
        exits.fail(error)


_StateDir = Annotated[
    Path | None,
    typer.Option(
        help="Where pools and keys are remembered; by default the user's state directory."
    ),
]


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="SANDPOOL_API_KEY", help="A key that callers must give."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with all settings.")] = None,
    state_dir: _StateDir = None,
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


keys = typer.Typer(help="Who may use a server.", no_args_is_help=True)
app.add_typer(keys, name="key")


@keys.command("add")
def add_key(
    name: Annotated[str, typer.Argument(help="What you will know it by.")],
    namespace: Annotated[str, typer.Option(help="Whose things it may see and touch.")] = "default",
    state_dir: _StateDir = None,
) -> None:
    """Make a key and print it: this once, for only its hash is kept.  A running server takes it."""
    from sandpool.cli import serve as server

    try:
        print(server.add_key(state_dir or server.default_state_dir(), name, namespace))
    except SandpoolError as error:
        exits.fail(error)


@keys.command("list")
def list_keys(as_json: _Json = False, state_dir: _StateDir = None) -> None:
    """Print the names of the keys."""
    from sandpool.cli import serve as server

    try:
        server.show_keys(state_dir or server.default_state_dir(), as_json=as_json)
    except SandpoolError as error:
        exits.fail(error)


@keys.command("revoke")
def revoke_key(names: list[str], state_dir: _StateDir = None) -> None:
    """Forget keys, at once also in a running server."""
    from sandpool.cli import serve as server

    try:
        server.revoke_key(state_dir or server.default_state_dir(), names)
    except SandpoolError as error:
        exits.fail(error)


@app.command(
    # What comes after the script is the script's, options included.
    context_settings={"allow_extra_args": True, "allow_interspersed_args": False},
    epilog="sandpool run script.py ARGS · sandpool run -c CODE ARGS · sandpool run -- COMMAND ARGS",
)
def run(
    context: typer.Context,
    code: Annotated[str | None, typer.Option("-c", help="Python code to run.")] = None,
    image: Annotated[str, typer.Option(help="`host`, or a root directory.")] = "host",
    preload: Annotated[
        list[str] | None, typer.Option(help="A module to import ahead; may be repeated.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE to set inside; may be repeated.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds until it is killed.")] = None,
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
        job = _job(code, list(context.args), _variables(env or []), timeout)
        spec = BoxSpec(
            image=image if image == "host" else str(Path(image).resolve()),
            preload=tuple(preload or ()),
            limits=Limits(memory_mb=memory_mb, cpus=cpus, pids=pids, disk_mb=disk_mb),
        )
        raise typer.Exit(anyio.run(run_job, spec, job))
    except SandpoolError as error:
        exits.fail(error)


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
        script = words.pop(0)
        try:
            code = Path(script).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise typer.BadParameter(f"{script} cannot be read: {error}") from error
    return Job("code", code=code, argv=tuple(words), env=env, timeout=timeout)


def _variables(pairs: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not name or not separator:
            raise typer.BadParameter(f"--env {pair!r} is not NAME=VALUE")
        found[name] = value
    return found
