"""The guide's program on one sandbox by its id, with only its imports and its sandbox type changed.

There are no images of a registry here, and none is put in its place silently: whoever runs the
program says, in its environment, what stands for the one that it names.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.namespaces

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


def test_the_guides_program_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "SANDPOOL_IMAGES": "python:3.11-slim=host"},
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    name, said, count = done.stdout.splitlines()
    assert name.removeprefix("Sandbox: ")
    assert said == "42"
    assert count == "Active: 1"
