"""Sandboxes of one native backend, and a check that a test leaves nothing behind."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator

import pytest

from sandpool.backends.base import Backend, BoxSpec
from sandpool.backends.native import NativeBackend
from tests.leaks import census
from tests.tenancy import Tenancy


@pytest.fixture
async def backend(templates: NativeBackend) -> AsyncIterator[Backend]:
    # Once, for what a first use makes for good: the template, a range of ids.
    await (await templates.create(BoxSpec(), box_id="first")).destroy()
    gc.collect()
    before = census.take()
    backend = Tenancy(templates)
    yield backend
    await backend.aclose()
    assert census.settle(before) == before
