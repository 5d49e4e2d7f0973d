"""The real `HttpSandboxManager` of ms-enclave, as it comes from its makers, against our server.

It runs in an interpreter of its own, in which nothing of ours is.  Each test is a program for it;
what the program hands to `tell` comes back as JSON.
"""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from sandpool.manager.backends import BackendFactory
from sandpool.server import KeySettings, ServerSettings, serving
from sandpool.server.keys import fingerprint
from tests import capabilities

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.thirdparty,
    pytest.mark.namespaces,
    pytest.mark.slow,
]

KEY = "sp_not-a-secret-of-anybody"
IMAGES = {"python:3.11-slim": "host", "jupyter-kernel-gateway": "host"}

PRELUDE = """
import asyncio, json, sys, tempfile
from pathlib import Path
from ms_enclave.sandbox.manager import HttpSandboxManager, SandboxManagerFactory
from ms_enclave.sandbox.model import (
    DockerNotebookConfig, DockerSandboxConfig, SandboxManagerConfig, SandboxStatus, SandboxType
)

URL = sys.argv[1]
CONFIG = DockerSandboxConfig(
    image='python:3.11-slim',
    tools_config={'python_executor': {}, 'shell_executor': {}, 'file_operation': {}},
)

def tell(*values):
    print(json.dumps(values), flush=True)

async def fails(call):
    try:
        await call
    except Exception as error:
        return type(error).__name__, str(error)
    raise AssertionError('it did not fail')

async def server(manager):
    return (await manager.health_check())['system_info']
"""


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """Return where this interface is on a server that gives native sandboxes for containers."""
    settings = ServerSettings(port=0, docker_as_native=True, images=IMAGES)
    async with serving(settings) as base:
        yield f"{base}/enclave"


async def run(url: str, body: str) -> list[Any]:
    """Run the body of a coroutine in the client's interpreter; return what it told."""
    body = textwrap.indent(textwrap.dedent(body), "    ")
    program = f"{PRELUDE}\nasync def main():\n{body}\nasyncio.run(main())\n"
    done = await anyio.run_process(
        [str(capabilities.THIRDPARTY / "bin" / "python"), "-I", "-c", program, url],
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "NO_PROXY": "*"},
    )
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


async def test_a_sandbox_is_made_used_stopped_and_deleted(url: str) -> None:
    told = await run(
        url,
        """
        async with HttpSandboxManager(base_url=URL) as manager:
            sandbox = await manager.create_sandbox(SandboxType.DOCKER, CONFIG)
            info = await manager.get_sandbox_info(sandbox)
            tell(info.id == sandbox, info.status.value, sorted(info.available_tools))
            tell([each.id for each in await manager.list_sandboxes()] == [sandbox])
            for tool, parameters in [
                ('python_executor', {'code': 'print(6 * 7)'}),
                ('shell_executor', {'command': 'echo a && echo b'}),
                ('shell_executor', {'command': ['echo', 'a && b']}),
                ('file_operation', {
                    'operation': 'write', 'file_path': '/sandbox/x', 'content': 'kept'
                }),
                ('file_operation', {'operation': 'read', 'file_path': '/sandbox/x'}),
            ]:
                result = await manager.execute_tool(sandbox, tool, parameters)
                tell(result.success, result.output, result.error)
            tell(await manager.stop_sandbox(sandbox))
            tell(len(await manager.list_sandboxes(SandboxStatus.STOPPED)))
            tell(await manager.delete_sandbox(sandbox), await manager.delete_sandbox(sandbox))
            tell(await manager.get_sandbox_info(sandbox), await manager.stop_sandbox(sandbox))
        """,
    )
    assert told == [
        [True, "running", ["file_operation", "python_executor", "shell_executor"]],
        [True],
        [True, "42\n", None],
        [True, "a\nb\n", None],
        [True, "a && b\n", None],
        [True, "File written successfully: /sandbox/x", None],
        [True, "kept", None],
        [True],
        [1],
        [True, False],
        [None, False],
    ]


async def test_what_a_program_does_wrong_is_a_result(url: str) -> None:
    told = await run(
        url,
        """
        async with HttpSandboxManager(base_url=URL) as manager:
            sandbox = await manager.create_sandbox(SandboxType.DOCKER, CONFIG)
            for tool, parameters in [
                ('python_executor', {'code': 'print(1); 1 / 0'}),
                ('python_executor', {'code': ''}),
                ('shell_executor', {'command': 'exit 3'}),
                ('shell_executor', {'command': 'sleep 60', 'timeout': 1}),
            ]:
                result = await manager.execute_tool(sandbox, tool, parameters)
                tell(result.status.value, result.output, result.error.splitlines()[-1])
        """,
    )
    assert told == [
        ["error", "1\n", "ZeroDivisionError: division by zero"],
        ["error", None, "No code provided"],
        ["error", "", "Command failed with exit code 3"],
        ["timeout", "", "Command timed out after 1 seconds"],
    ]


async def test_archives_and_directories_are_unpacked(url: str) -> None:
    told = await run(
        url,
        """
        async with HttpSandboxManager(base_url=URL) as manager:
            sandbox = await manager.create_sandbox(SandboxType.DOCKER, CONFIG)
            with tempfile.TemporaryDirectory() as place:
                Path(place, 'sub').mkdir()
                Path(place, 'sub', 'a.txt').write_text('here')
                tell(await manager.put_dir(sandbox, place, '/sandbox/in'))
            result = await manager.execute_tool(
                sandbox, 'shell_executor', {'command': 'cat /sandbox/in/sub/a.txt'}
            )
            tell(result.output)
            tell(*await fails(manager.put_archive(sandbox, '/sandbox/in', b'no tar')))
            tell(*await fails(manager.put_archive(sandbox, '/sandbox/in', b'')))
            tell(*await fails(manager.put_archive('nobody', '/sandbox/in', b'no tar')))
        """,
    )
    assert told[:2] == [[True], ["here"]]
    assert told[2][0] == "ValueError"
    assert told[3:] == [
        ["ValueError", "Archive body must not be empty"],
        ["ValueError", "Sandbox nobody not found"],
    ]


async def test_mistakes_raise_what_that_client_raises_for_them(url: str) -> None:
    told = await run(
        url,
        """
        async with HttpSandboxManager(base_url=URL) as manager:
            sandbox = await manager.create_sandbox(SandboxType.DOCKER, CONFIG)
            tell(*await fails(manager.execute_tool('nobody', 'python_executor', {'code': '1'})))
            tell(*await fails(manager.execute_tool(sandbox, 'nonsense', {})))
            tell(*await fails(manager.execute_tool(sandbox, 'python_executor', {'cod': '1'})))
            tell(*await fails(manager.get_sandbox_tools('nobody')))
            await manager.stop_sandbox(sandbox)
            tell(*await fails(manager.execute_tool(sandbox, 'python_executor', {'code': '1'})))
            for config in (
                DockerSandboxConfig(image='debian'),
                DockerSandboxConfig(privileged=True),
                DockerSandboxConfig(volumes={'/': {'bind': '/host', 'mode': 'rw'}}),
            ):
                tell(*await fails(manager.create_sandbox(SandboxType.DOCKER, config)))
            tell(*await fails(manager.create_sandbox(SandboxType.VOLCENGINE)))
            tell(*await fails(manager.execute_tool_in_pool('python_executor', {'code': '1'})))
            tell(len(await manager.list_sandboxes()))
        """,
    )
    sandbox = told[4][1].split()[1]
    assert told[:3] == [
        ["ValueError", "Sandbox nobody not found"],
        ["ValueError", "Tool nonsense is not available"],
        ["RuntimeError", "HTTP 400: python_executor: unknown argument 'cod'"],
    ]
    assert told[3] == ["ValueError", "Sandbox nobody not found"]
    assert told[4] == ["ValueError", f"Sandbox {sandbox} is not active (status: stopped)"]
    refused = [(kind, " ".join(text.split()[:4])) for kind, text in told[5:9]]
    assert refused == [
        ("RuntimeError", "HTTP 400: image 'debian'"),
        ("RuntimeError", "HTTP 400: privileged: a"),
        ("RuntimeError", "HTTP 400: volumes: a"),
        ("RuntimeError", "HTTP 422: query.sandbox_type: Input"),
    ]
    assert told[9:] == [["ValueError", "Sandbox pool is empty, call initialize_pool first"], [1]]


async def test_a_container_is_made_only_where_the_operator_says_what_stands_for_it(
    native_backend: BackendFactory,
) -> None:
    native = {"native": native_backend}
    async with serving(ServerSettings(port=0, images=IMAGES), backends=native) as base:
        told = await run(
            f"{base}/enclave",
            """
            async with HttpSandboxManager(base_url=URL) as manager:
                tell(*await fails(manager.create_sandbox(SandboxType.DOCKER, CONFIG)))
            """,
        )
    assert told == [
        [
            "RuntimeError",
            "HTTP 400: Sandbox type docker is not registered (available: native)",
        ]
    ]


async def test_a_notebook_keeps_its_names_from_cell_to_cell(url: str) -> None:
    told = await run(
        url,
        """
        async with HttpSandboxManager(base_url=URL) as manager:
            config = DockerNotebookConfig(tools_config={'notebook_executor': {}})
            sandbox = await manager.create_sandbox(SandboxType.DOCKER_NOTEBOOK, config)
            for code in ('x = 20', 'print(x); x + 1'):
                result = await manager.execute_tool(sandbox, 'notebook_executor', {'code': code})
                tell(result.success, result.output)
        """,
    )
    assert told == [[True, ""], [True, "20\n\nResult: 21"]]


async def test_a_pool_serves_more_callers_than_it_has_sandboxes(url: str) -> None:
    told = await run(
        url,
        """
        async with HttpSandboxManager(base_url=URL) as manager:
            members = await manager.initialize_pool(2, SandboxType.DOCKER, CONFIG)
            tell(len(set(members)))
            # A file of an earlier caller would make the next one fail.
            code = 'import os; os.mkdir("/sandbox/mine"); print({})'
            results = await asyncio.gather(*(
                manager.execute_tool_in_pool('python_executor', {'code': code.format(number)})
                for number in range(20)
            ))
            tell([result.output for result in results])
            while (found := await server(manager))['pool_free'] < 2:
                pass
            tell(found['pool_initialized'], found['pool_size'], found['pool_busy'])
        """,
    )
    assert told == [[2], [[f"{number}\n" for number in range(20)]], [True, 2, 0]]


async def test_a_client_that_ends_leaves_the_pool_to_the_others(url: str) -> None:
    told = await run(
        url,
        """
        async with HttpSandboxManager(base_url=URL) as staying:
            async with HttpSandboxManager(base_url=URL) as leaving:
                first = await leaving.initialize_pool(2, SandboxType.DOCKER, CONFIG)
                tell(first == await staying.initialize_pool(2, SandboxType.DOCKER, CONFIG))
                tell((await server(staying))['total_sandboxes'])
                call = asyncio.create_task(staying.execute_tool_in_pool(
                    'shell_executor', {'command': 'sleep 1; echo done'}
                ))
                while not (await server(staying))['pool_busy']:
                    pass
            # The client that ended has deleted all that it knew of the pool, as it always does.
            tell((await call).output)
            result = await staying.execute_tool_in_pool('python_executor', {'code': 'print(2)'})
            tell(result.output)
            while (found := await server(staying))['pool_free'] < 2:
                pass
            tell(found['total_sandboxes'], found['pool_size'])
        """,
    )
    assert told == [[True], [2], ["done\n"], ["2\n"], [2, 2]]


async def test_a_wait_that_is_over_raises_a_timeout_error_that_says_so(url: str) -> None:
    told = await run(
        url,
        """
        async with HttpSandboxManager(base_url=URL) as manager:
            await manager.initialize_pool(1, SandboxType.DOCKER, CONFIG)
            call = asyncio.create_task(manager.execute_tool_in_pool(
                'shell_executor', {'command': 'sleep 2; echo done'}
            ))
            while not (await server(manager))['pool_busy']:
                pass
            tell(*await fails(manager.execute_tool_in_pool(
                'python_executor', {'code': '1'}, timeout=0.25
            )))
            tell((await call).output)
        """,
    )
    assert told == [
        ["TimeoutError", "Timeout waiting for available sandbox from pool after 0.25s"],
        ["done\n"],
    ]


async def test_a_client_that_gives_up_ends_what_the_server_does_for_it(url: str) -> None:
    told = await run(
        url,
        """
        async with HttpSandboxManager(base_url=URL) as manager:
            await manager.initialize_pool(1, SandboxType.DOCKER, CONFIG)
            async with HttpSandboxManager(base_url=URL, timeout=1) as hasty:
                await hasty.initialize_pool(1, SandboxType.DOCKER, CONFIG)
                kind, _ = await fails(hasty.execute_tool_in_pool(
                    'shell_executor', {'command': 'sleep 600'}
                ))
                tell(kind)
            result = await manager.execute_tool_in_pool(
                'shell_executor', {'command': 'echo free'}, timeout=10
            )
            tell(result.output)
        """,
    )
    assert told == [["TimeoutError"], ["free\n"]]


async def test_a_key_is_sent_by_that_client_and_needed_by_our_server() -> None:
    key = KeySettings(name="tests", sha256=fingerprint(KEY))
    settings = ServerSettings(port=0, docker_as_native=True, images=IMAGES, keys=(key,))
    async with serving(settings) as base:
        told = await run(
            f"{base}/enclave",
            f"""
            config = SandboxManagerConfig(base_url=URL, api_key={KEY!r})
            async with SandboxManagerFactory.create_manager(config=config) as manager:
                tell(type(manager).__name__, (await manager.health_check())['healthy'])
                stats = await manager.get_stats()
                tell(stats['manager_type'], stats['total_sandboxes'], stats['tracked_sandboxes'])
            async with HttpSandboxManager(base_url=URL) as stranger:
                tell(await stranger.health_check())
                tell(*await fails(stranger.create_sandbox(SandboxType.DOCKER, CONFIG)))
            """,
        )
    assert told[:3] == [
        ["HttpSandboxManager", True],
        ["http", 0, 0],
        [{"healthy": False, "error": "HTTP 401"}],
    ]
    kind, text = told[3]
    assert kind == "RuntimeError"
    assert text.startswith("HTTP 401: ")
