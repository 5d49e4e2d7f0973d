"""A native backend for each test, and a check that it leaves nothing behind."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator

import pytest

from sandpool.backends.native import NativeBackend
from tests.leaks import census


@pytest.fixture
async def backend() -> AsyncIterator[NativeBackend]:
    gc.collect()
    before = census.take()
    backend = NativeBackend()
    yield backend
    await backend.aclose()
    assert census.settle(before) == before
