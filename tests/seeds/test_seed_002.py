"""The guide's program on one sandbox by its id, with only its imports changed.

In containers it runs as it is.  Natively its sandbox type is another, and nothing is put in the
place of the image that it names silently: whoever runs it says, in its environment, what is.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio
from sandpool.enclave import LocalSandboxManager
from sandpool.enclave import DockerSandboxConfig, SandboxType, SandboxManagerConfig

async def main():
    # Sweep expired sandboxes every 10 minutes
    manager_config = SandboxManagerConfig(cleanup_interval=600)

    async with LocalSandboxManager(config=manager_config) as manager:
        sandbox_id = await manager.create_sandbox(
            SandboxType.NATIVE,
            DockerSandboxConfig(
                image='python:3.11-slim',
                tools_config={'python_executor': {}},
            ),
        )
        print(f'Sandbox: {sandbox_id}')

        result = await manager.execute_tool(
            sandbox_id,
            'python_executor',
            {'code': 'print(40 + 2)'},
        )
        print(result.output.strip())  # 42

        sandboxes = await manager.list_sandboxes()
        print(f'Active: {len(sandboxes)}')

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
    name, said, count = done.stdout.splitlines()
    assert name.removeprefix("Sandbox: ")
    assert said == "42"
    assert count == "Active: 1"


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
    assert done.stdout.splitlines()[1:] == ["42", "Active: 1"]
