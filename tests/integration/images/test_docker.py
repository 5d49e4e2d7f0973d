"""Images of a Docker Engine in the native backend, and in a registry between the two."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sandpool import LocalSandboxManager, PoolSpec
from sandpool.config import IMAGE_STORE
from sandpool.images import ImageStore
from tests.integration.docker.conftest import docker

pytestmark = [pytest.mark.docker, pytest.mark.namespaces, pytest.mark.timeout(120)]

IMAGE = "python:3.11-slim"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageStore:
    monkeypatch.setenv(IMAGE_STORE, str(tmp_path / "store"))
    return ImageStore(tmp_path / "store")


def sandpool(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sandpool", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.anyio
async def test_an_engines_image_runs_natively_with_its_own_python_and_preload(
    store: ImageStore,
) -> None:
    done = sandpool("image", "add", f"docker:{IMAGE}")
    assert done.returncode == 0, done.stderr
    identity = docker("inspect", "--format", "{{.Id}}", IMAGE)
    assert done.stdout == f"{IMAGE} {identity}\n"
    inside = docker(
        "run", "--rm", "--network=none", IMAGE, "python3", "-c", "import sys; print(sys.version)"
    )
    spec = PoolSpec(name="p", image=IMAGE, backend="auto", preload=("decimal",), warm=1, max=2)
    async with LocalSandboxManager() as manager:
        assert (await manager.create_pool(spec)).backend == "native"
        async with manager.lease("p") as sandbox:
            code = "import os, sys; print('decimal' in sys.modules, os.environ['PYTHON_VERSION'])"
            assert (await sandbox.run_code(code)).stdout == "True 3.11\n"
            assert (
                await sandbox.run_code("import sys; print(sys.version)")
            ).stdout == inside + "\n"
            ran = await sandbox.exec(["python", "-c", "import sys; print(sys.executable)"])
            assert ran.stdout == "/usr/bin/python\n"
        info = await manager.get_pool("p")
        assert info.backend == "native"


@pytest.mark.anyio
async def test_an_image_that_only_the_engine_has_is_dockers_with_auto(store: ImageStore) -> None:
    async with LocalSandboxManager() as manager:
        spec = PoolSpec(name="p", image=IMAGE, backend="auto", warm=1, max=1)
        assert (await manager.create_pool(spec)).backend == "docker"
        async with manager.lease("p") as sandbox:
            assert (await sandbox.run_code("print(6 * 7)")).stdout == "42\n"


def test_an_image_comes_by_way_of_a_registry_with_its_layers(
    store: ImageStore, registry: str, tmp_path: Path
) -> None:
    name = f"{registry}/team/app:1"
    (tmp_path / "Dockerfile").write_text(
        f"FROM {IMAGE}\nCOPY added /opt/added\n"
        "RUN rm /etc/debian_version && ln /opt/added /opt/twin\n"
    )
    (tmp_path / "added").write_text("added")
    docker("build", "--network=none", "--tag", name, str(tmp_path))
    try:
        docker("push", name)
        identity = docker("inspect", "--format", "{{.Id}}", name)
    finally:
        docker("rmi", name)
    done = sandpool("image", "pull", name, "--name", "app")
    assert done.stdout == f"app:latest {identity}\n", done.stderr
    assert sandpool("image", "add", f"docker:{IMAGE}").returncode == 0
    chains = list((store.path / "chains").iterdir())
    assert len(chains) == len(store.need("app").layers)  # the engine's image is the lowest of them
    hold = store.hold(store.need("app"))
    assert (hold.root / "opt/twin").samefile(hold.root / "opt/added")
    assert not (hold.root / "etc/debian_version").exists()
    hold.close()
    done = sandpool("run", "--image", "app", "-c", "print(open('/opt/twin').read())")
    assert done.stdout == "added\n", done.stderr
    listed = json.loads(sandpool("image", "list", "--json").stdout)
    assert [(row["name"], row["in_use"]) for row in listed] == [
        ("app:latest", False),
        (IMAGE, False),
    ]
    done = sandpool("image", "rm", "app", "no-such", IMAGE)
    assert (done.returncode, done.stdout) == (1, f"app\n{IMAGE}\n")
    assert "no-such" in done.stderr
    assert list((store.path / "chains").iterdir()) == []


def test_an_image_that_an_engine_does_not_have_is_named(store: ImageStore) -> None:
    done = sandpool("image", "add", "docker:no-such-image:1")
    assert done.returncode == 1
    assert "docker pull no-such-image:1" in done.stderr
    assert store.all() == []
