"""Sandboxes of the native backend that are made from images of the store."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sandpool import LocalSandboxManager, PoolSpec, SandboxFactory
from sandpool.backends.base import Backend, BoxSpec, RunOptions
from sandpool.backends.native import NativeBackend
from sandpool.config import IMAGE_STORE
from sandpool.errors import (
    BackendUnavailable,
    ImageInUse,
    ImageNotFound,
    InvalidSpec,
    Unsupported,
)
from sandpool.images import ImageStore, sources
from sandpool.images.manifest import this_platform
from sandpool.models import NativeSandboxConfig
from sandpool.testing import FakeBackend
from tests.leaks import census

from .archives import FILE, busybox, candidate, tar

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

ENV = {"PATH": "/bin:/opt/tools", "GREETING": "hello", "HOME": "/root", "LD_PRELOAD": "/no/such.so"}

SHELL: dict[str, dict[str, object]] = {"shell_executor": {"shell_path": "/bin/sh"}}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageStore:
    """A store with an image that has a shell and no Python."""
    if not Path("/bin/busybox").exists():
        pytest.skip("there is no /bin/busybox (Debian: apt-get install busybox-static)")
    monkeypatch.setenv(IMAGE_STORE, str(tmp_path / "store"))
    store = ImageStore(tmp_path / "store")
    with store.adding("bare") as scratch:
        found = sources.find(busybox(tmp_path / "root"), scratch, this_platform())
        store.add("bare", found)
    return store


@pytest.fixture
async def backend(store: ImageStore) -> AsyncIterator[NativeBackend]:
    before = census.take()
    backend = NativeBackend(image_store=store.path)
    yield backend
    await backend.aclose()
    assert census.settle(before) == before


async def test_an_image_without_python_runs_commands_and_keeps_files(
    backend: NativeBackend,
) -> None:
    box = await backend.create(BoxSpec(image="bare"), box_id="x")
    assert box.info["image"] == "bare"
    assert box.info["python"] is None
    done = await box.exec(RunOptions(argv=("cat", "/etc/motd")))
    assert (done.exit_code, done.stdout) == (0, "hello\n")
    await box.write_file("left.txt", b"mine")
    done = await box.exec(
        RunOptions(argv=("sh", "-c", "cat left.txt; echo more >> left.txt; id -u"))
    )
    assert done.stdout == "mine1000\n"
    assert b"".join([piece async for piece in box.read_file("left.txt")]) == b"minemore\n"
    done = await box.exec(RunOptions(argv=("sh", "-c", "echo x > /bin/sh")))
    assert done.exit_code != 0
    with pytest.raises(Unsupported, match="no Python"):
        await box.run_code("1", RunOptions())


async def test_what_an_author_has_set_holds_inside_and_never_outside(
    backend: NativeBackend, store: ImageStore
) -> None:
    layer = tar(*(("opt/tools/say", FILE, "#!/bin/sh\necho $GREETING $HOME\n"),), change=runnable)
    base = store.need("bare")
    with store.adding("x") as scratch:
        root = sources.find(Path(base.origin), scratch, this_platform())
        with root.layers[0].open() as stream:
            first = read_all(stream)
    store.add(
        "dressed",
        candidate(first, layer, config={"Env": [f"{key}={value}" for key, value in ENV.items()]}),
    )
    box = await backend.create(BoxSpec(image="dressed", env={"EXTRA": "1"}), box_id="x")
    done = await box.exec(RunOptions(argv=("say",)))
    assert done.stdout == "hello /home/sandbox\n"
    done = await box.exec(RunOptions(argv=("sh", "-c", "echo $EXTRA $LD_PRELOAD")))
    assert done.stdout == "1 /no/such.so\n"


def runnable(info: object) -> None:
    info.mode = 0o755  # type: ignore[attr-defined]


def read_all(stream: object) -> bytes:
    found = b""
    while data := stream.read(65536):  # type: ignore[attr-defined]
        found += data
    return found


async def test_an_image_in_use_is_not_removed_and_its_name_may_move(
    backend: NativeBackend, store: ImageStore
) -> None:
    pinned = store.need("bare").reference
    box = await backend.create(BoxSpec(image=pinned), box_id="x")
    with pytest.raises(ImageInUse):
        store.remove("bare")
    store.add("bare", candidate(tar(("bin/other", FILE, ""))))
    again = await backend.create(BoxSpec(image=pinned), box_id="y")
    for each in (box, again):
        assert (await each.exec(RunOptions(argv=("cat", "/etc/motd")))).stdout == "hello\n"
    await backend.aclose()
    with pytest.raises(ImageNotFound):
        await backend.create(BoxSpec(image=pinned), box_id="z")
    store.remove("bare")
    assert list((store.path / "chains").iterdir()) == []


async def test_a_template_that_cannot_start_holds_no_image(
    backend: NativeBackend, store: ImageStore
) -> None:
    with pytest.raises(InvalidSpec):
        await backend.prepare(BoxSpec(image="bare", preload=("no_such_module",)))
    store.remove("bare")


async def test_a_missing_image_says_where_it_was_looked_for(
    backend: NativeBackend, store: ImageStore
) -> None:
    with pytest.raises(ImageNotFound, match="sandpool image pull app:1") as missing:
        await backend.create(BoxSpec(image="app:1"), box_id="x")
    assert str(store.path) in str(missing.value)


async def test_a_manager_makes_pools_and_sandboxes_of_stored_images(store: ImageStore) -> None:
    async with LocalSandboxManager() as manager:
        info = await manager.create_pool(PoolSpec(name="p", image="bare", warm=1, max=2))
        assert info.backend == "native"
        async with manager.lease("p") as sandbox:
            assert (await sandbox.exec(["cat", "/etc/motd"])).stdout == "hello\n"
        images = {image.name: image.pools for image in await manager.list_images()}
        assert images == {"host": (), "bare:latest": ("p",)}
        with pytest.raises(ImageNotFound, match="image add docker:no-such"):
            await manager.create_pool(PoolSpec(name="q", image="no-such"))
    sandbox_of_its_own = SandboxFactory.create_sandbox(
        "native", NativeSandboxConfig(image="bare", tools_config=SHELL)
    )
    async with sandbox_of_its_own as one:
        result = await one.execute_tool("shell_executor", {"command": "cat /etc/motd"})
        assert result.output.strip() == "hello", result


async def test_a_pool_whose_images_name_has_moved_gets_the_new_one_when_it_is_deployed_again(
    store: ImageStore, tmp_path: Path
) -> None:
    spec = PoolSpec(name="p", image="bare", warm=1, max=2)
    async with LocalSandboxManager() as manager:
        await manager.create_pool(spec)
        (tmp_path / "root/etc/motd").write_text("changed\n")
        with store.adding("bare") as scratch:
            store.add("bare", sources.find(tmp_path / "root", scratch, this_platform()))
        async with manager.lease("p") as sandbox:
            assert (await sandbox.exec(["cat", "/etc/motd"])).stdout == "hello\n"
        await manager.update_pool("p", spec)
        async with manager.lease("p") as sandbox:
            assert (await sandbox.exec(["cat", "/etc/motd"])).stdout == "changed\n"


async def test_auto_is_native_where_the_image_is_there_and_else_docker(store: ImageStore) -> None:
    containers = FakeBackend(images=("bare", "elsewhere:1"))
    backends: dict[str, Callable[[], Backend]] = {
        "native": NativeBackend,
        "docker": lambda: containers,
    }
    async with LocalSandboxManager(backends=backends) as manager:
        spec = PoolSpec(name="a", image="bare", backend="auto", warm=0, max=1)
        here = await manager.create_pool(spec)
        assert (here.backend, here.spec.backend) == ("native", "auto")
        host = await manager.create_pool(PoolSpec(name="b", backend="auto", warm=0, max=1))
        assert host.backend == "native"
        there = await manager.create_pool(
            PoolSpec(name="c", image="elsewhere:1", backend="auto", warm=1, max=1)
        )
        assert there.backend == "docker"
        assert there.spec.recycle == "reset"
        with pytest.raises(ImageNotFound, match=r"image pull nowhere:1.*Docker was tried instead"):
            await manager.create_pool(PoolSpec(name="d", image="nowhere:1", backend="auto"))
        # Once it is there, the next deployment of the pool is native.
        store.add("elsewhere:1", candidate(tar(("bin/sh", FILE, ""))))
        assert (await manager.update_pool("c", there.spec)).backend == "native"


async def test_auto_without_an_engine_says_both_what_is_missing(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{store.path}/no-such.sock")
    async with LocalSandboxManager() as manager:
        with pytest.raises(BackendUnavailable, match=r"image pull app:1.*no-such\.sock"):
            await manager.create_pool(PoolSpec(name="a", image="app:1", backend="auto"))


def test_only_root_keeps_owners(store: ImageStore) -> None:
    assert store.need("bare").keeps_ids is (os.geteuid() == 0)
