"""Containers come, go and fail, and nothing is left of them."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from sandpool.backends.base import BoxSpec, RunOptions
from sandpool.backends.docker import DockerBackend
from sandpool.errors import (
    BackendUnavailable,
    CreateFailed,
    ImageNotFound,
    InvalidSpec,
    SandboxDied,
)

from .conftest import SPEC, containers, docker

pytestmark = [pytest.mark.anyio, pytest.mark.docker]


async def test_a_destroyed_sandbox_leaves_no_container(backend: DockerBackend) -> None:
    box = await backend.create(SPEC, box_id="gone")
    assert "sandbox-gone" in containers()
    await box.run_code("import subprocess; subprocess.Popen(['sleep', '100'])", RunOptions())
    await box.destroy()
    assert "sandbox-gone" not in containers()
    with pytest.raises(SandboxDied):
        await box.ping()
    await box.destroy()


async def test_closing_removes_all_containers(backend: DockerBackend) -> None:
    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(lambda name: backend.create(SPEC, box_id=name), f"closing{number}")
    assert len([name for name in containers() if name.startswith("sandbox-closing")]) == 4
    await backend.aclose()
    assert not [name for name in containers() if name.startswith("sandbox-closing")]


@pytest.mark.parametrize("after", [0.0, 0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.25])
async def test_a_creation_that_is_cancelled_leaves_nothing(
    backend: DockerBackend, after: float
) -> None:
    await backend.prepare(SPEC)
    with anyio.move_on_after(after):
        box = await backend.create(SPEC, box_id="cancelled")
        await box.destroy()
    assert "sandbox-cancelled" not in containers()


async def test_one_backend_lives_on_several_event_loops() -> None:
    backend = DockerBackend()

    async def use(name: str) -> str:
        box = await backend.create(SPEC, box_id=name)
        return (await box.run_code("print(40 + 2)", RunOptions())).stdout

    def in_a_loop_of_its_own(name: str) -> str:
        return asyncio.run(use(name))

    said = [await anyio.to_thread.run_sync(in_a_loop_of_its_own, name) for name in ("one", "two")]
    assert said == ["42\n", "42\n"]
    await backend.aclose()
    assert not containers() & {"sandbox-one", "sandbox-two"}


async def test_preloaded_modules_are_there_when_a_run_begins(backend: DockerBackend) -> None:
    spec = BoxSpec(image=SPEC.image, preload=("decimal", "json.tool"))
    box = await backend.create(spec, box_id="preload")
    code = "import sys; print({'decimal', 'json.tool'} <= set(sys.modules))"
    assert (await box.run_code(code, RunOptions())).stdout == "True\n"


async def test_what_cannot_be_preloaded_is_named(backend: DockerBackend) -> None:
    spec = BoxSpec(image=SPEC.image, preload=("no_such_module",))
    with pytest.raises(InvalidSpec, match="no_such_module"):
        await backend.prepare(spec)


async def test_an_image_that_is_missing_is_named_with_what_gets_it(backend: DockerBackend) -> None:
    with pytest.raises(ImageNotFound, match="docker pull no-such-image:1"):
        await backend.create(BoxSpec(image="no-such-image:1"), box_id="missing")


async def test_the_native_backend_s_images_are_not_ours(backend: DockerBackend) -> None:
    with pytest.raises(ImageNotFound, match="native backend"):
        await backend.prepare(BoxSpec(image="host"))


async def test_a_name_that_is_taken_is_said_and_its_container_is_left_alone(
    backend: DockerBackend,
) -> None:
    docker("create", "--name", "sandbox-taken", SPEC.image)
    try:
        with pytest.raises(CreateFailed, match="sandbox-taken is taken"):
            await backend.create(SPEC, box_id="taken")
        assert "sandbox-taken" in containers()
    finally:
        docker("rm", "--force", "sandbox-taken")


async def test_a_container_removed_by_hand_is_a_death_with_its_cause(
    backend: DockerBackend,
) -> None:
    victim = await backend.create(SPEC, box_id="victim")
    other = await backend.create(SPEC, box_id="other")
    dead = anyio.Event()
    told: list[SandboxDied] = []

    def note(died: SandboxDied) -> None:
        told.append(died)
        dead.set()

    victim.on_death(note)
    docker("rm", "--force", "sandbox-victim")
    with anyio.fail_after(60):
        await dead.wait()
    with pytest.raises(SandboxDied, match=r"killed|removed"):
        await victim.run_code("print(1)", RunOptions())
    assert [died.reason for died in told] == ["killed"]
    assert (await other.run_code("print(1)", RunOptions())).stdout == "1\n"
    await victim.destroy()


async def test_an_engine_that_is_not_there_is_an_error_that_says_what_to_do() -> None:
    backend = DockerBackend(address="unix:///nowhere/docker.sock")
    with pytest.raises(BackendUnavailable, match=r"/nowhere/docker\.sock .* DOCKER_HOST"):
        await backend.prepare(SPEC)


async def test_an_engine_over_the_network_is_refused() -> None:
    backend = DockerBackend(address="tcp://127.0.0.1:2375")
    with pytest.raises(BackendUnavailable, match="Unix socket"):
        await backend.prepare(SPEC)


async def test_a_runtime_that_the_engine_lacks_is_named_with_those_it_has() -> None:
    backend = DockerBackend(runtime="kata")
    with pytest.raises(BackendUnavailable, match=r"no runtime 'kata' \(it has .*runc"):
        await backend.prepare(SPEC)


async def test_output_waits_for_who_reads_it(backend: DockerBackend) -> None:
    box = await backend.create(SPEC, box_id="pressure")
    code = """
import sys
for number in range(64):
    sys.stdout.write("x" * (1 << 20))
    sys.stdout.flush()
    print(number, file=sys.stderr, flush=True)
"""
    run = await box.start_code(code, RunOptions(max_output=None, timeout=60))
    # Others are served while nobody takes this run's output.
    assert (await box.run_code("print(1)", RunOptions())).stdout == "1\n"
    size = 0
    async for stream, piece in run:
        size += len(piece) if stream == "stdout" else 0
    assert size == 64 << 20
    assert (await run.wait()).exit_code == 0
