"""The backends of a manager, and how they end."""

from __future__ import annotations

import pytest

from sandpool import LocalSandboxManager
from sandpool.backends.base import BoxSpec
from sandpool.manager.backends import Backends
from sandpool.models import SandboxType
from sandpool.testing import FakeBackend

pytestmark = pytest.mark.anyio


async def test_a_backend_that_cannot_be_closed_is_logged_and_holds_up_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stuck, other = FakeBackend(), FakeBackend()
    backends = Backends({"native": lambda: stuck, "docker": lambda: other})
    for kind in (SandboxType.NATIVE, SandboxType.DOCKER):
        await backends.get(kind).create(BoxSpec(), box_id="a")
    stuck.box("a").refuse_destroy()
    await backends.aclose()
    assert other.destroyed == 1
    assert "a backend could not be closed" in caplog.text


async def test_a_manager_stops_though_a_sandbox_does_not_and_can_be_started_again() -> None:
    backend = FakeBackend()
    manager = LocalSandboxManager(backends={"native": lambda: backend})
    await manager.start()
    await manager.create_sandbox(SandboxType.NATIVE)
    backend.boxes[0].refuse_destroy()
    await manager.stop()
    await manager.start()
    assert await manager.list_sandboxes() == []
    await manager.stop()
