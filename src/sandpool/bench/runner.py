"""Runs benchmarks, each in a process of its own, so that one that fails loses nothing but itself.

What it leaves in its memory is not the next one's either.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import cast

import anyio
from pydantic import ValidationError

from sandpool.bench import machine
from sandpool.bench.report import Findings, Outcome, Report, Status
from sandpool.bench.scale import Scale
from sandpool.bench.suite import Benchmark
from sandpool.errors import BackendUnavailable

LIMIT = 600.0
"""Seconds that a benchmark may take, beyond a soak's own."""
_GRACE = 20.0
"""Seconds that one that is interrupted has to end what it has started."""


def run(
    benchmarks: Sequence[Benchmark],
    scale: Scale,
    *,
    begin: Callable[[Benchmark], None] = lambda _: None,
    keep: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Run them one after the other; `keep` is given what there is after each."""
    began = datetime.now(UTC).isoformat(timespec="seconds")
    zero = time.perf_counter()
    described = machine.describe()
    settings = {name: str(value) for name, value in scale.model_dump().items()}
    outcomes: list[Outcome] = []
    report = Report(began=began, seconds=0, machine=described, settings=settings)
    for benchmark in benchmarks:
        begin(benchmark)
        outcomes.append(run_apart(benchmark, scale))
        report = report.model_copy(
            update={"seconds": time.perf_counter() - zero, "outcomes": tuple(outcomes)}
        )
        keep(report)
    return report


def run_apart(benchmark: Benchmark, scale: Scale, *, limit: float = LIMIT) -> Outcome:
    """Run one in a process of its own, which is ended after `limit` seconds."""
    begun = time.perf_counter()
    process = subprocess.Popen(  # our own interpreter and program
        [sys.executable, "-m", "sandpool.bench", benchmark.key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        output, errors = process.communicate(scale.model_dump_json(), limit + scale.soak)
    except subprocess.TimeoutExpired:
        return _outcome(benchmark, begun, "failed", f"it took more than {limit:.0f} s")
    finally:
        _end(process)
    try:
        return Outcome.model_validate_json(output.rstrip("\n").rpartition("\n")[2])
    except ValidationError:
        lines = errors.strip().splitlines() or ["it said nothing"]
        reason = f"its process ended with {process.returncode}: {lines[-1]}"
        return _outcome(benchmark, begun, "failed", reason)


def _end(process: subprocess.Popen[str]) -> None:
    """End a process that has not ended, and whatever it has started; first by asking."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def run_here(benchmark: Benchmark, scale: Scale) -> Outcome:
    """Run one in this process, whatever comes of it."""
    begun = time.perf_counter()
    try:
        findings = anyio.run(benchmark.measure, scale)
    # The boundary of a benchmark: its failure is a result, and the others' turn comes.
    except Exception as error:  # noqa: BLE001
        cause = _first_leaf(error)
        if isinstance(cause, BackendUnavailable):
            return _outcome(benchmark, begun, "left out", str(cause))
        traceback.print_exception(error)
        return _outcome(benchmark, begun, "failed", f"{type(cause).__name__}: {cause}")
    return _outcome(benchmark, begun, "done", findings=findings)


def _first_leaf(error: Exception) -> Exception:
    leaf = error
    while isinstance(leaf, ExceptionGroup):
        leaf = cast("ExceptionGroup[Exception]", leaf).exceptions[0]
    return leaf


def _outcome(
    benchmark: Benchmark,
    begun: float,
    status: Status,
    reason: str = "",
    findings: Findings | None = None,
) -> Outcome:
    return Outcome(
        key=benchmark.key,
        title=benchmark.title,
        where=benchmark.where,
        status=status,
        reason=reason,
        seconds=time.perf_counter() - begun,
        findings=findings or Findings(),
    )
