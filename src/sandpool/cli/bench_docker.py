"""Containers: one program, with ms-enclave and with us, on one engine and from one image.

Both lend from a pool of two.  Theirs gives a container back as it is; ours has been reset, and the
reset proved, before the next caller has it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import anyio
from rich.console import Console

from sandpool.backends.base import BoxSpec, RunOptions
from sandpool.backends.docker import DockerBackend
from sandpool.cli.report import Result, compare, ms, percentile
from sandpool.errors import BackendUnavailable, SandpoolError

IMAGE = "python:3.11-slim"
_RIVAL = Path(".venv-thirdparty/bin/python")
"""What `make thirdparty` makes, seen from the checkout."""
_OUR_NAME, _GVISOR, _THEIR_NAME = "sandpool", "sandpool, runsc", "ms-enclave"
_TURNS = 3
_AT_ONCE = 40
_TIMEOUT = 900.0

_THEIRS = """
from ms_enclave.sandbox.manager import LocalSandboxManager
from ms_enclave.sandbox.model import DockerSandboxConfig, SandboxType
manager = LocalSandboxManager
"""
_OURS = """
from sandpool import DockerSandboxConfig, LocalSandboxManager, SandboxType
from sandpool.backends.docker import DockerBackend
runtime = sys.argv[4] if len(sys.argv) > 4 else None
def manager():
    return LocalSandboxManager(backends={"docker": lambda: DockerBackend(runtime=runtime)})
"""
_PROGRAM = textwrap.dedent(
    """
    async def main(image, samples, at_once):
        async with manager() as pool:
            config = DockerSandboxConfig(image=image, tools_config={"python_executor": {}})
            await pool.initialize_pool(
                pool_size=2, sandbox_type=SandboxType.DOCKER, config=config
            )

            async def call(number):
                begun = time.perf_counter()
                result = await pool.execute_tool_in_pool(
                    "python_executor", {"code": f"print({number})"}, timeout=300
                )
                if result.output.strip() != str(number):
                    raise RuntimeError(f"a sandbox answered {result!r}")
                return time.perf_counter() - begun

            for number in range(4):
                await call(number)
            times = [await call(number) for number in range(samples)]
            rates = []
            for _ in range(3):
                begun = time.perf_counter()
                await asyncio.gather(*map(call, range(at_once)))
                rates.append(at_once / (time.perf_counter() - begun))
        print(json.dumps({"times": times, "rate": sorted(rates)[1]}))

    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
    """
)


class _Measured(NamedTuple):
    """What one program has found, in seconds and calls a second."""

    times: list[float]
    rate: float


def measure(console: Console, *, samples: int) -> list[Result]:
    """Measure; raises `BackendUnavailable` where no engine answers, or it lacks the image."""
    rivals = {_OUR_NAME: (sys.executable, _OURS), _GVISOR: (sys.executable, _OURS, "runsc")}
    if _RIVAL.exists():
        rivals = {_THEIR_NAME: (str(_RIVAL), _THEIRS), **rivals}
    else:
        console.print("left out: ms-enclave, which `make thirdparty` installs")
    measured: dict[str, list[_Measured]] = {}
    for turn in range(_TURNS):  # so that all see the same machine
        console.print(f"containers, a pool of 2, turn {turn + 1} of {_TURNS}: {', '.join(rivals)}")
        for name, program in list(rivals.items()):
            try:
                found = _run(*program, samples=max(5, samples // _TURNS))
            except BackendUnavailable as error:
                if name != _GVISOR:
                    raise
                console.print(f"left out: {name}: {error}")
                del rivals[name]
            else:
                measured.setdefault(name, []).append(found)
    results = [line for name, found in measured.items() for line in _lines(name, _joined(found))]
    for name in filter(measured.__contains__, (_OUR_NAME, _GVISOR)):
        is_floor = name == _OUR_NAME
        if _THEIR_NAME in measured:
            theirs, ours = _joined(measured[_THEIR_NAME]), _joined(measured[name])
            results += _ratios(name, theirs, ours, is_floor=is_floor)
        resets = anyio.run(_measure_reset, None if is_floor else "runsc", samples)
        results.append(_reset_line(name, resets, is_floor=is_floor))
    return results


def _joined(found: list[_Measured]) -> _Measured:
    """Return what several turns have found, as one."""
    times = [time for each in found for time in each.times]
    return _Measured(times, statistics.median(each.rate for each in found))


def _run(python: str, imports: str, *more: str, samples: int) -> _Measured:
    program = "import asyncio, json, sys, time\n" + imports + _PROGRAM
    done = subprocess.run(  # the program above, and nothing of anybody else's
        [python, "-c", program, IMAGE, str(samples), str(_AT_ONCE), *more],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise BackendUnavailable(f"containers cannot be measured: {reason[0]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return _Measured(found["times"], found["rate"])


async def _measure_reset(runtime: str | None, samples: int) -> list[float]:
    times: list[float] = []
    backend = DockerBackend(runtime=runtime)
    try:
        box = await backend.create(BoxSpec(image=IMAGE), box_id="bench-reset")
        for _ in range(samples):
            await box.run_code("open('left', 'w').write('x' * 1000)", RunOptions())
            begun = anyio.current_time()
            await box.reset()
            times.append(anyio.current_time() - begun)
    except SandpoolError as error:
        raise BackendUnavailable(f"a reset cannot be measured: {error}") from error
    finally:
        with anyio.CancelScope(shield=True):  # bounded by the backend
            await backend.aclose()
    return times


def _lines(label: str, found: _Measured) -> list[Result]:
    times = found.times
    return [
        Result(f"{label}: execute_tool_in_pool, p50", ms(statistics.median(times)), "ms"),
        Result(f"{label}: the same, p99", ms(percentile(times, 0.99)), "ms"),
        Result(f"{label}: {_AT_ONCE} calls at once", round(found.rate, 1), "/s"),
    ]


def _ratios(label: str, theirs: _Measured, ours: _Measured, *, is_floor: bool) -> list[Result]:
    faster = statistics.median(theirs.times) / statistics.median(ours.times)
    more = ours.rate / theirs.rate
    if not is_floor:
        return [
            Result(f"ms-enclave ÷ {label}, p50", round(faster, 2), "times"),
            Result(f"{label} ÷ ms-enclave, {_AT_ONCE} at once", round(more, 2), "times"),
        ]
    return [
        compare(f"ms-enclave ÷ {label}, p50", faster, "≥ 20", lambda ratio: ratio >= 20),
        compare(
            f"{label} ÷ ms-enclave, {_AT_ONCE} at once", more, "≥ 12", lambda ratio: ratio >= 12
        ),
    ]


def _reset_line(label: str, times: list[float], *, is_floor: bool) -> Result:
    value = ms(statistics.median(times))
    name = f"{label}: reset, p50"
    if not is_floor:
        return Result(name, value, "ms")
    return compare(name, value, "≤ 25 ms", lambda found: found <= 25, "ms")
