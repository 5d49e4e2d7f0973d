"""`sandpool demo`: the main job, end to end, on this machine, with what it measured."""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

import anyio
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from sandpool.cli.filling import shown
from sandpool.deployment import deploy
from sandpool.errors import SandpoolError
from sandpool.manager.local import LocalSandboxManager
from sandpool.models import PoolSpec

if TYPE_CHECKING:
    from sandpool.cli.service_demo import Step

_POOL = "demo"
_COLD_STARTS = 10
_SERVER_NEEDS = ("aiohttp", "fastapi", "uvicorn")
_LEFT_BEHIND = "/tmp/left-behind.txt"  # noqa: S108 (a path inside a sandbox)


@dataclass(frozen=True)
class Measured:
    """What the demo measured; times in milliseconds."""

    warm_up_ms: float
    """From nothing to a pool full of warm sandboxes, the template's start included."""
    pool: int
    cold_ms: float
    """Starting `python3 -I -S -c 'print(1)'` until its first output, p50."""
    first_output_ms: float
    """Leasing a warm sandbox and running `print(1)` until its first output, p50, one caller."""
    callers: int
    cycles: int
    cycles_per_second: float
    cycle_p50_ms: float
    cycle_p99_ms: float
    is_pristine: bool
    """Whether the second tenant found nothing of the first one's."""


async def show(*, callers: int, cycles: int, as_json: bool) -> bool:
    """Run the demo and print it; return whether all was as it should be.

    Raises what a host that cannot run it makes the backend raise.
    """
    console = Console(stderr=as_json)
    measured = await measure(console, callers=callers, cycles=cycles)
    if not as_json:
        console.print(_table(measured))
    steps = await _walk(console)
    if as_json:
        found = {**asdict(measured), "service": [asdict(step) for step in steps]}
        print(json.dumps(found, indent=2))
    return measured.is_pristine


async def show_service(url: str, api_key: str | None, *, as_json: bool) -> None:
    """Go through the steps of a service pool at a server, and print them; `SandpoolError`."""
    from sandpool.cli.service_demo import walk

    console = Console(stderr=as_json)
    steps = await walk(url, api_key, lambda step: _print_step(console, step))
    if as_json:
        print(json.dumps({"service": [asdict(step) for step in steps]}, indent=2))


async def _walk(console: Console) -> list[Step]:
    missing = [name for name in _SERVER_NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        console.print(f"no pool of services: {', '.join(missing)} missing (sandpool\\[server])")
        return []
    from sandpool.cli.service_demo import own_server, walk

    console.print("a pool of web servers, claimed by URL from a server of ours:")
    async with own_server() as url:
        return await walk(url, None, lambda step: _print_step(console, step))


def _print_step(console: Console, step: Step) -> None:
    console.print(f"  {step.name:<52} {step.ms:8.1f} ms", highlight=False)


async def measure(console: Console, *, callers: int, cycles: int) -> Measured:
    """Warm a pool, use it, and return what that took."""
    cold = _median(_cold_start for _ in range(_COLD_STARTS))
    async with LocalSandboxManager() as manager:
        warm = max(2, callers)
        begun = time.perf_counter()
        spec = PoolSpec(name=_POOL, warm=warm, max=4 * warm, builders=min(8, warm))
        await shown(manager, spec, partial(deploy, manager, spec))
        warm_up = (time.perf_counter() - begun) * 1000
        console.print("one tenant leaves a file behind and a process running; the next looks:")
        is_pristine = await _show_two_tenants(manager, console)
        await manager.wait_pool_warm(_POOL)
        firsts = [await _first_output(manager) for _ in range(30)]
        console.print(f"{callers} callers run {cycles} pieces of code, each in a fresh sandbox:")
        with _progress(console) as progress:
            task = progress.add_task("running", total=cycles)
            times, seconds = await _cycle(manager, callers, cycles, lambda: progress.advance(task))
    ordered = sorted(times)
    return Measured(
        warm_up_ms=round(warm_up, 1),
        pool=warm,
        cold_ms=round(cold, 2),
        first_output_ms=round(statistics.median(firsts), 2),
        callers=callers,
        cycles=cycles,
        cycles_per_second=round(cycles / seconds, 1),
        cycle_p50_ms=round(statistics.median(ordered), 2),
        cycle_p99_ms=round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 2),
        is_pristine=is_pristine,
    )


def _cold_start() -> float:
    begun = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "print(1)"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        return (time.perf_counter() - begun) * 1000


def _median(calls: Iterator[Callable[[], float]]) -> float:
    return statistics.median(call() for call in calls)


@contextmanager
def _progress(console: Console) -> Generator[Progress]:
    with Progress(
        TextColumn("  {task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f}"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        yield progress


async def _show_two_tenants(manager: LocalSandboxManager, console: Console) -> bool:
    async with manager.lease(_POOL) as sandbox:
        await sandbox.files.write(_LEFT_BEHIND, "secret")
        await sandbox.run_code("import subprocess; subprocess.Popen(['sleep', '1000'])")
    async with manager.lease(_POOL) as sandbox:
        result = await sandbox.run_code(
            "import os\n"
            f"print(os.path.exists({_LEFT_BEHIND!r}), end=' ')\n"
            "names = (f'/proc/{p}/comm' for p in os.listdir('/proc') if p.isdigit())\n"
            "print(any(open(name).read() == 'sleep\\n' for name in names))"
        )
    if not result.ok:
        raise SandpoolError(f"the second tenant's code failed: {result.stderr}")
    is_pristine = result.stdout == "False False\n"
    console.print(f"  it finds {'nothing' if is_pristine else 'something: ' + result.stdout}")
    return is_pristine


async def _first_output(manager: LocalSandboxManager) -> float:
    await manager.wait_pool_warm(_POOL)
    seen: list[float] = []
    begun = time.perf_counter()
    async with manager.lease(_POOL) as sandbox:
        await sandbox.run_code(
            "print(1)", on_output=lambda stream, data: seen.append(time.perf_counter())
        )
    return (seen[0] - begun) * 1000


async def _cycle(
    manager: LocalSandboxManager, callers: int, cycles: int, advance: Callable[[], None]
) -> tuple[list[float], float]:
    """Lease, run and give back `cycles` times; return each one's milliseconds, and all seconds."""
    times: list[float] = []
    numbers = iter(range(cycles))

    async def call() -> None:
        for number in numbers:
            begun = time.perf_counter()
            async with manager.lease(_POOL) as sandbox:
                result = await sandbox.run_code(f"print({number} * 2)")
            times.append((time.perf_counter() - begun) * 1000)
            if result.stdout != f"{number * 2}\n":
                raise SandpoolError(f"a sandbox answered {result.stdout!r}: {result.stderr}")
            advance()

    begun = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(callers):
            group.start_soon(call)
    return times, time.perf_counter() - begun


def _table(measured: Measured) -> Table:
    table = Table(show_header=True, box=None, padding=(0, 2))
    table.add_column("measured")
    table.add_column("", justify="right")
    table.add_row(f"{measured.pool} sandboxes, from nothing to warm", f"{measured.warm_up_ms} ms")
    table.add_row(
        "lease a warm sandbox, run print(1): first output", f"{measured.first_output_ms} ms"
    )
    table.add_row("start python3 -I -S -c 'print(1)': first output", f"{measured.cold_ms} ms")
    table.add_row(
        f"fresh cycles (lease, run, destroy, refill), {measured.callers} callers",
        f"{measured.cycles_per_second} /s",
    )
    table.add_row(
        "one cycle, p50 and p99", f"{measured.cycle_p50_ms} and {measured.cycle_p99_ms} ms"
    )
    return table
