"""One native template and one set of surroundings for all attempts, a sandbox for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from sandpool.backends.base import BoxSpec, RunOptions
from sandpool.backends.native import NativeBackend
from tests.conftest import ASYNCIO, Loop
from tests.escape.surroundings import Surroundings, surround

NEIGHBOUR = """
import socket, time
open("/tmp/neighbour", "w").write("x")
port = socket.create_server(("127.0.0.1", 4321))
name = socket.socket(socket.AF_UNIX)
name.bind("\\0neighbour")
name.listen()
print("here", flush=True)
time.sleep(1000)
"""


@pytest.fixture(scope="module")
def anyio_backend() -> Loop:
    return ASYNCIO


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    with surround(tmp_path_factory.mktemp("escape")) as found:
        yield found


@pytest.fixture(scope="module")
async def backend(anyio_backend: Loop, surroundings: Surroundings) -> AsyncIterator[NativeBackend]:
    """A backend with a sandbox in it that others may try to reach."""
    backend = NativeBackend()
    neighbour = await backend.create(BoxSpec(), box_id="neighbour")
    async with await neighbour.start_code(NEIGHBOUR, RunOptions()) as process:
        async for _, data in process:
            assert data == b"here\n"
            break
        yield backend
    await backend.aclose()
