"""The server's own description, played against it: nothing that it allows makes it fail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio.from_thread
import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from sandpool.server import NamespaceLimits, ServerSettings, serving
from sandpool.testing import FakeBackend

LIMITS = NamespaceLimits(max_sandboxes=50, max_pools=10, max_leases=20)
SETTINGS = ServerSettings(port=0, default_limits=LIMITS, max_body=64 * 1024, max_upload=64 * 1024)
"""Small enough that what the examples make stays little."""
PATIENCE = 1.0
"""Seconds to wait for an answer; some calls wait for as long as they are told to."""
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")

ENDLESS = frozenset({"/v1/events"})
_UNHEALTHY = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
_openapi: Any = schemathesis.openapi


@schemathesis.serializer("application/x-tar")
def as_it_is(_: Any, value: Any) -> bytes:
    """Send an archive as whatever was thought up, which is none."""
    return value if isinstance(value, bytes) else repr(value).encode()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with anyio.from_thread.start_blocking_portal() as portal:
        running = serving(SETTINGS, backends={"native": FakeBackend})
        with portal.wrap_async_context_manager(running) as url:
            yield url


@pytest.fixture
def schema(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    # It keeps what it finds in the directory that it runs in.
    monkeypatch.chdir(tmp_path)
    return _openapi.from_url(f"{url}/openapi.json")


def play(schema: Any, mode: GenerationMode, examples: int, deadline: float) -> set[str]:
    """Call every operation with examples of one kind; return those that there was time for."""
    played: set[str] = set()
    for found in schema.get_all_operations():
        operation: Any = found.ok()
        if operation.path in ENDLESS or time.monotonic() > deadline:
            continue

        @hypothesis.settings(
            max_examples=examples,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=_UNHEALTHY,
        )
        @hypothesis.given(case=operation.as_strategy(mode))
        def call(case: Any) -> None:
            check(case)

        try:
            call()
        except Unsatisfiable:
            continue
        played.add(operation.label)
    return played


def check(case: Any) -> None:
    """Call once, and look at the answer; no answer in time is the example's own wish."""
    try:
        answer = case.call(timeout=PATIENCE)
    except requests.Timeout:
        return
    # 501: what the backend of these sandboxes lacks.
    assert answer.status_code < 500 or answer.status_code == 501, case
    if answer.status_code >= 400:
        problem: dict[str, Any] = answer.json()
        assert problem["code"] != "internal_error"
        assert answer.headers["content-type"] == ["application/problem+json"], case


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_a_few_calls_of_each_operation_get_answers(schema: Any, mode: GenerationMode) -> None:
    assert play(schema, mode, 1, time.monotonic() + 3)


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_many_calls_of_each_operation_get_answers(schema: Any, mode: GenerationMode) -> None:
    played: set[str] = set()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        played |= play(schema, mode, 25, deadline)
    assert played
