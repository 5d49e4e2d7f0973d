"""One native template for each module of tests, and a sandbox of its own for each test."""

from __future__ import annotations

import gc
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from sandpool.backends.base import Box, BoxSpec
from sandpool.backends.native import NativeBackend
from tests.conftest import ASYNCIO, Loop
from tests.leaks import census

MakeBox = Callable[[], Awaitable[Box]]


@pytest.fixture(scope="module")
def anyio_backend() -> Loop:
    """Run a whole module on one event loop, so that its template can live as long."""
    return ASYNCIO


@pytest.fixture(scope="module")
async def backend(anyio_backend: Loop) -> AsyncIterator[NativeBackend]:
    gc.collect()
    before = census.take()
    backend = NativeBackend()
    await backend.prepare(BoxSpec())
    yield backend
    await backend.aclose()
    assert census.settle(before) == before


@pytest.fixture
async def make_box(backend: NativeBackend) -> AsyncIterator[MakeBox]:
    """Make as many sandboxes of the one template as a test asks for."""
    boxes: list[Box] = []
    numbers = itertools.count()

    async def make() -> Box:
        box = await backend.create(BoxSpec(), box_id=f"guest-test-{next(numbers)}")
        boxes.append(box)
        return box

    yield make
    dead = [box.died for box in boxes if box.died is not None]
    for box in boxes:
        await box.destroy()
    assert not dead, "no test here may cost a sandbox its life"


@pytest.fixture
async def box(make_box: MakeBox) -> Box:
    return await make_box()
