"""Images without Python: commands and files all the same, by a Python that this machine lends."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandpool import LocalSandboxManager, PoolSpec, SandboxType
from sandpool.backends.base import BoxSpec, RunOptions
from sandpool.backends.docker import DockerBackend
from sandpool.errors import InvalidSpec, Unsupported
from tests.integration.images.archives import busybox

from .conftest import docker

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.timeout(60)]

NAME = "sandpool-test/bare:1"


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[str]:
    """An image with a static shell, and no C library or Python."""
    if not Path("/bin/busybox").exists():
        pytest.skip("there is no /bin/busybox (Debian: apt-get install busybox-static)")
    root = busybox(tmp_path / "root")
    packed = subprocess.run(["tar", "-C", str(root), "-c", "."], check=True, capture_output=True)
    subprocess.run(["docker", "import", "-", NAME], input=packed.stdout, check=True)
    yield NAME
    docker("rmi", NAME)


@pytest.mark.parametrize("runtime", [None, "runsc"])
async def test_commands_and_files_and_a_reset(bare: str, runtime: str | None) -> None:
    backend = DockerBackend(runtime=runtime)
    try:
        box = await backend.create(BoxSpec(image=bare), box_id="bare")
        assert box.info["python"] is None
        assert "lent" in box.info["guest"]
        done = await box.exec(RunOptions(argv=("sh", "-c", "cat /etc/motd; echo bad >&2; exit 3")))
        assert (done.exit_code, done.stdout, done.stderr) == (3, "hello\n", "bad\n")
        done = await box.exec(RunOptions(argv=("sh", "-c", "while :; do :; done"), timeout=0.5))
        assert done.timed_out
        await box.write_file("left.txt", b"mine")
        assert [entry.name for entry in await box.list_files(".")] == ["left.txt"]
        with pytest.raises(Unsupported, match="no Python"):
            await box.run_code("1", RunOptions())
        await box.reset()
        assert await box.list_files(".") == []
    finally:
        await backend.aclose()


async def test_nothing_of_the_lent_python_can_be_changed_and_no_package_is_seen(bare: str) -> None:
    backend = DockerBackend()
    try:
        box = await backend.create(BoxSpec(image=bare), box_id="bare")
        script = "for each in /.sandpool/lib/* /.sandpool/python/bin/*; do echo x > $each; done"
        done = await box.exec(RunOptions(argv=("sh", "-c", script)))
        assert done.stderr.count("Read-only file system") >= 3
        done = await box.exec(
            RunOptions(argv=("sh", "-c", "ls /.sandpool/python/lib/*/*-packages"))
        )
        assert done.stdout.strip() == "" or done.exit_code != 0
        assert "PYTHONHOME" not in (await box.exec(RunOptions(argv=("sh", "-c", "set")))).stdout
    finally:
        await backend.aclose()


async def test_there_is_nothing_to_preload(bare: str) -> None:
    backend = DockerBackend()
    try:
        with pytest.raises(InvalidSpec, match="no python3 on its PATH"):
            await backend.prepare(BoxSpec(image=bare, preload=("json",)))
    finally:
        await backend.aclose()


async def test_a_pool_of_them_is_reset_between_leases(bare: str) -> None:
    async with LocalSandboxManager() as manager:
        spec = PoolSpec(name="p", backend="docker", image=bare, warm=1, max=1)
        await manager.create_pool(spec)
        for _ in range(2):
            async with manager.lease("p") as sandbox:
                assert await sandbox.files.list(".") == []
                await sandbox.files.write("left.txt", b"mine")
        info = await manager.get_pool("p")
        assert info.created == 1
        assert info.backend == SandboxType.DOCKER.value
