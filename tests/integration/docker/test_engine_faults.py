"""The engine itself goes away: by its operator, by a crash; and comes back."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from sandpool import LocalSandboxManager, PoolSpec
from sandpool.backends.base import RunOptions
from sandpool.backends.box import GuestBox
from sandpool.backends.docker import DockerBackend
from sandpool.errors import (
    AcquireTimeout,
    BackendUnavailable,
    DestroyFailed,
    PoolDegraded,
    SandboxDied,
)

from .conftest import SPEC

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(180),
]

SCRIPT = Path(__file__).with_name("engine.sh")


class OwnEngine:
    """An engine that nobody else uses."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.address = f"unix://{directory}/docker.sock"
        self._script("start")

    def _script(self, action: str) -> None:
        subprocess.run([SCRIPT, action, self.directory], check=True, stdout=subprocess.DEVNULL)

    def kill(self, number: signal.Signals) -> None:
        """Send the daemon a signal and wait until it has ended."""
        handle = os.pidfd_open(int((self.directory / "pid").read_text()))
        try:
            signal.pidfd_send_signal(handle, number)
            assert select.select([handle], [], [], 60)[0], "dockerd does not end"
        finally:
            os.close(handle)

    def send(self, number: signal.Signals) -> None:
        """Send the daemon a signal that it lives through."""
        os.kill(int((self.directory / "pid").read_text()), number)

    def launch(self) -> None:
        self._script("launch")

    def close(self) -> None:
        self._script("stop")

    def containers(self) -> set[str]:
        argv = ["docker", "-H", self.address, "ps", "--all", "--format", "{{.Names}}"]
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
        return set(done.stdout.split())


@pytest.fixture
def engine() -> Iterator[OwnEngine]:
    # Not pytest's own directory: the path of a socket must be short.
    engine = OwnEngine(Path(tempfile.mkdtemp(prefix="sandpool-")))
    try:
        yield engine
    finally:
        engine.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_sandboxes_die_with_their_engine_and_new_ones_come_with_it(
    engine: OwnEngine, number: signal.Signals
) -> None:
    backend = DockerBackend(address=engine.address)
    box = await backend.create(SPEC, box_id="before")
    engine.kill(number)
    with pytest.raises(SandboxDied):
        await box.run_code("print(1)", RunOptions(timeout=10))
    with pytest.raises(DestroyFailed, match="may still be there"):
        await box.destroy()
    with pytest.raises(BackendUnavailable, match="DOCKER_HOST"):
        await backend.create(SPEC, box_id="during")
    engine.launch()
    again = await backend.create(SPEC, box_id="after")
    assert (await again.run_code("print(40 + 2)", RunOptions())).stdout == "42\n"
    # What could not be removed while there was no engine is, now that there is.
    assert engine.containers() == {"sandbox-after"}
    await backend.aclose()
    assert engine.containers() == set()


async def test_a_pool_without_its_engine_says_why_and_heals(engine: OwnEngine) -> None:
    backends = {"docker": lambda: DockerBackend(address=engine.address)}
    async with LocalSandboxManager(backends=backends) as manager:
        spec = PoolSpec(name="boxes", backend="docker", image=SPEC.image, warm=1, create_retries=0)
        await manager.create_pool(spec)
        async with manager.lease("boxes") as sandbox:
            assert (await sandbox.run_code("print(1)")).stdout == "1\n"
        engine.kill(signal.SIGTERM)
        with pytest.raises((PoolDegraded, SandboxDied)) as caught:
            async with manager.lease("boxes", timeout=30) as sandbox:
                await sandbox.run_code("print(1)")
        if isinstance(caught.value, PoolDegraded):
            assert "DOCKER_HOST" in str(caught.value)
        engine.launch()
        with anyio.fail_after(60):
            while not await is_served(manager):
                pass


async def is_served(manager: LocalSandboxManager) -> bool:
    """Whether the pool gives a sandbox that works."""
    try:
        async with manager.lease("boxes", timeout=2) as sandbox:
            return (await sandbox.run_code("print(2)")).stdout == "2\n"
    except (PoolDegraded, SandboxDied, AcquireTimeout):
        return False


async def test_an_engine_that_is_slow_is_waited_for(engine: OwnEngine) -> None:
    backend = DockerBackend(address=engine.address)
    await backend.prepare(SPEC)
    made: list[GuestBox] = []

    async def make() -> None:
        made.append(await backend.create(SPEC, box_id="slow"))

    engine.send(signal.SIGSTOP)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(make)
            await anyio.wait_all_tasks_blocked()
            assert made == []
            engine.send(signal.SIGCONT)
    finally:
        engine.send(signal.SIGCONT)
    assert (await made[0].run_code("print(1)", RunOptions())).stdout == "1\n"
    await backend.aclose()
    assert engine.containers() == set()


async def test_an_engine_that_does_not_answer_is_said_to(engine: OwnEngine) -> None:
    engine.send(signal.SIGSTOP)
    try:
        backend = DockerBackend(address=engine.address)
        with pytest.raises(BackendUnavailable, match=r"did not answer GET /version in time"):
            await backend.prepare(SPEC)
    finally:
        engine.send(signal.SIGCONT)
    await backend.aclose()


@pytest.fixture
def small_engine() -> Iterator[OwnEngine]:
    """An engine whose disk has room for the image and little more."""
    directory = Path(tempfile.mkdtemp(prefix="sandpool-"))
    options = ["-t", "tmpfs", "-o", "size=700m", "tmpfs", str(directory)]
    subprocess.run(["mount", *options], check=True)
    try:
        engine = OwnEngine(directory / "engine")
        try:
            yield engine
        finally:
            engine.close()
    finally:
        subprocess.run(["umount", str(directory)], check=True)
        directory.rmdir()


async def test_a_pool_whose_engine_has_no_disk_left_says_so_and_heals(
    small_engine: OwnEngine,
) -> None:
    backends = {"docker": lambda: DockerBackend(address=small_engine.address)}
    filler = small_engine.directory.parent / "filler"
    async with LocalSandboxManager(backends=backends) as manager:
        spec = PoolSpec(name="boxes", backend="docker", image=SPEC.image, warm=0, create_retries=0)
        await manager.create_pool(spec)
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
        with pytest.raises(PoolDegraded, match="no space left on device"):
            async with manager.lease("boxes", timeout=60):
                pass
        filler.unlink()
        with anyio.fail_after(60):
            while not await is_served(manager):
                pass
    assert small_engine.containers() == set()
