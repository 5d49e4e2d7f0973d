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
