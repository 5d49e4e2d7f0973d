"""The guide's program on a pool of sandboxes, with only its imports changed.

In containers it runs as it is.  Natively its sandbox type is another, and nothing is put in the
place of the image that it names silently: whoever runs it says, in its environment, what is.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio
from sandpool.enclave import LocalSandboxManager
from sandpool.enclave import DockerSandboxConfig, SandboxType

async def main():
    async with LocalSandboxManager() as manager:
        config = DockerSandboxConfig(
            image='python:3.11-slim',
            tools_config={'python_executor': {}},
        )

        # Pre-warm 2 sandboxes
        await manager.initialize_pool(
            pool_size=2,
            sandbox_type=SandboxType.NATIVE,
            config=config,
        )

        # Borrow and auto-return
        result = await manager.execute_tool_in_pool(
            'python_executor',
            {'code': 'print("from pool")'},
            timeout=30,  # wait timeout for an idle sandbox
        )
        print(result.output.strip())

        print(await manager.get_stats())

asyncio.run(main())
"""


@pytest.mark.namespaces
def test_the_guides_program_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "SANDPOOL_IMAGES": "python:3.11-slim=host"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said, stats = done.stdout.splitlines()
    assert said == "from pool"
    found = ast.literal_eval(stats)
    assert found["pool_target"] == 2


@pytest.mark.docker
@pytest.mark.timeout(60)
def test_the_guides_program_runs_in_containers_as_it_is() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("SandboxType.NATIVE", "SandboxType.DOCKER")],
        env={name: value for name, value in os.environ.items() if name != "SANDPOOL_IMAGES"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said, stats = done.stdout.splitlines()
    assert said == "from pool"
    assert ast.literal_eval(stats)["pool_target"] == 2
