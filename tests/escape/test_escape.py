"""Every known way out of a sandbox is tried, and stopped by the mechanism that is meant to."""

from __future__ import annotations

import json
import platform

import pytest

from sandpool.backends.base import BoxSpec, RunOptions
from sandpool.backends.native import NativeBackend
from tests.escape.attempts import ATTEMPTS, EPILOGUE, FOREIGN_CALL, PRELUDE, Attempt
from tests.escape.surroundings import Surroundings

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.name)
async def test_a_tenant_that(
    backend: NativeBackend, surroundings: Surroundings, attempt: Attempt
) -> None:
    box = await backend.create(BoxSpec(), box_id="tenant")
    try:
        argv = (json.dumps(surroundings.facts), attempt.program)
        done = await box.run_code(PRELUDE + EPILOGUE, RunOptions(argv=argv, timeout=10))
        assert done.exit_code == 0, done.stderr
        verdict, error = json.loads(done.stdout)
        assert verdict == "stopped", f"{attempt.mechanism} did not stop it"
        if attempt.errors:
            assert error in attempt.errors, f"{attempt.mechanism} is meant to stop it"
        await box.ping()
    finally:
        await box.destroy()
    assert not surroundings.touched()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="it is a call of 32-bit x86")
async def test_a_tenant_that_makes_calls_of_another_architecture(backend: NativeBackend) -> None:
    box = await backend.create(BoxSpec(), box_id="tenant")
    try:
        done = await box.run_code(FOREIGN_CALL, RunOptions(timeout=10))
        assert done.stdout == ""
        assert done.signal == 31, "SIGSYS: seccomp ends the process"
        await box.ping()
    finally:
        await box.destroy()


def test_there_are_many_attempts() -> None:
    assert len(ATTEMPTS) >= 100
    assert len({attempt.name for attempt in ATTEMPTS}) == len(ATTEMPTS)
