"""Containers: one program, with ms-enclave and with us, on one engine and from one image.

Both lend from a pool of two.  Theirs gives a container back as it is; ours has been reset, and the
reset proved, before the next caller has it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import NamedTuple

import anyio.to_thread

from sandpool.bench import baselines, quantiles
from sandpool.bench.report import Figure, Findings
from sandpool.bench.scale import Scale
from sandpool.bench.served import RIVAL
from sandpool.errors import BackendUnavailable

_OURS_NAME, _GVISOR, _THEIRS_NAME = "sandpool on Docker", "sandpool on runsc", "ms-enclave"
_AT_ONCE_AIM = 40
"""What the target speaks of."""
_TIMEOUT = 300.0

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
    """What one program has found, a value for each repeat: seconds, and calls a second."""

    times: list[list[float]]
    rates: list[float]


async def measure(scale: Scale) -> Findings:
    """Run the programs in turns; `BackendUnavailable` without an engine that has the image."""
    rivals = {
        _THEIRS_NAME: (str(RIVAL / "python"), _THEIRS),
        _OURS_NAME: (sys.executable, _OURS),
        _GVISOR: (sys.executable, _OURS, "runsc"),
    }
    notes: list[str] = []
    if not (RIVAL / "python").exists():
        del rivals[_THEIRS_NAME]
        notes.append("left out: ms-enclave, which `make thirdparty` installs")
    measured = {name: _Measured([], []) for name in rivals}
    for _ in range(scale.repeats):  # in turns, so that all see the same machine
        for name, program in list(rivals.items()):
            try:
                await anyio.to_thread.run_sync(_run, program, scale, measured[name])
            except BackendUnavailable as error:
                if name == _OURS_NAME:
                    raise
                notes.append(f"left out: {name}: {error}")
                del rivals[name]
    figures: list[Figure] = []
    for name in rivals:
        figures += _figures(name, measured[name], scale.at_once)
    for name in (_OURS_NAME, _GVISOR):
        if name in rivals and _THEIRS_NAME in rivals:
            figures += _ratios(name, measured[_THEIRS_NAME], measured[name], scale.at_once)
    return Findings(figures=tuple(figures), notes=tuple(notes))


def _run(program: tuple[str, ...], scale: Scale, into: _Measured) -> None:
    python, imports, *more = program
    text = "import asyncio, json, sys, time\n" + imports + _PROGRAM
    done = subprocess.run(  # the program above, and nothing of anybody else's
        [python, "-c", text, baselines.IMAGE, str(scale.slow_samples), str(scale.at_once), *more],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise BackendUnavailable(f"containers cannot be measured: {reason[0]}")
    found = json.loads(done.stdout.splitlines()[-1])
    into.times.append(found["times"])
    into.rates.append(found["rate"])


def _figures(name: str, found: _Measured, at_once: int) -> list[Figure]:
    return [
        *quantiles.latencies(f"{name}: execute_tool_in_pool", found.times),
        quantiles.steady(f"{name}: {at_once} calls at once", found.rates, "/s"),
    ]


def _ratios(name: str, theirs: _Measured, ours: _Measured, at_once: int) -> list[Figure]:
    faster = [
        quantiles.median(one) / quantiles.median(two)
        for one, two in zip(theirs.times, ours.times, strict=True)
    ]
    more = [one / two for one, two in zip(ours.rates, theirs.rates, strict=True)]
    is_aim = name == _OURS_NAME
    return [
        quantiles.steady(
            f"ms-enclave ÷ {name}, p50",
            faster,
            "times",
            n=sum(map(len, ours.times)),
            goal="docker-p50" if is_aim else None,
        ),
        quantiles.steady(
            f"{name} ÷ ms-enclave, {at_once} at once",
            more,
            "times",
            goal="docker-rate" if is_aim and at_once == _AT_ONCE_AIM else None,
        ),
    ]
