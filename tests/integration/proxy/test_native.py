"""Addresses of real sandboxes: embedded, and served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest

from sandpool import LocalSandboxManager, PoolSpec, SandboxConfig
from sandpool.errors import BadAddress, LeaseOver
from sandpool.manager.backends import BackendFactory
from sandpool.manager.local_sandbox import LocalSandbox
from sandpool.manager.sandbox_factory import SandboxFactory
from sandpool.models import SandboxType
from sandpool.server import ServerSettings, serving
from sandpool.service import Process, Sandbox
from tests.integration.proxy.world import PORT

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

LIMIT = 60.0

SERVER = f"""
import http.server

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        size = int(self.headers["Content-Length"])
        self.answer(self.rfile.read(size))

    def do_GET(self):
        self.answer(self.path.encode())

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", {PORT}), Handler)
print("up", flush=True)
server.serve_forever()
"""


async def serve(sandbox: Sandbox) -> Process:
    """Start a server in a sandbox, and return once it listens."""
    process = await sandbox.start_process(["python3", "-c", SERVER])
    async for stream, data in process:
        assert (stream, data) == ("stdout", b"up\n")
        break
    return process


@asynccontextmanager
async def client() -> AsyncIterator[httpx.AsyncClient]:
    with anyio.fail_after(LIMIT):
        async with httpx.AsyncClient(timeout=LIMIT) as client:
            yield client


async def test_an_embedded_sandbox_has_an_address_while_its_lease_lasts(
    native_backend: BackendFactory,
) -> None:
    async with LocalSandboxManager(backends={"native": native_backend}) as manager, client() as web:
        await manager.create_pool(PoolSpec(name="web", warm=1))
        async with manager.lease("web") as sandbox:
            url = await sandbox.url(PORT)
            assert await sandbox.url(PORT) == url
            assert (await web.get(url)).status_code == 502
            await serve(sandbox)
            assert (await web.get(url + "a?b")).text == "/a?b"
            body = b"x" * 5_000_000
            assert (await web.post(url, content=body)).content == body
        with pytest.raises(httpx.TransportError):
            await web.get(url)
        with pytest.raises(LeaseOver):
            await sandbox.url(PORT)


async def test_a_sandbox_by_its_id_has_an_address_until_it_is_deleted(
    native_backend: BackendFactory,
) -> None:
    async with LocalSandboxManager(backends={"native": native_backend}) as manager, client() as web:
        box = await manager.create_sandbox(SandboxType.NATIVE)
        sandbox = manager.usable_sandbox(box)
        url = await sandbox.url(PORT, private=True)
        await serve(sandbox)
        assert (await web.get(url)).text == "/"
        bare = httpx.URL(url).copy_with(username=None, password=None)
        assert (await web.get(bare)).status_code == 401
        await manager.delete_sandbox(box)
        with pytest.raises(httpx.TransportError):
            await web.get(url)


async def test_a_sandbox_without_a_manager_has_an_address() -> None:
    async with SandboxFactory.create_sandbox(SandboxType.NATIVE, SandboxConfig()) as sandbox:
        assert isinstance(sandbox, LocalSandbox)
        await serve(sandbox)
        url = await sandbox.url(PORT)
        async with client() as web:
            assert (await web.get(url)).text == "/"
    async with client() as web:
        with pytest.raises(httpx.TransportError):
            await web.get(url)


def test_an_address_is_the_same_on_another_event_loop() -> None:
    manager = LocalSandboxManager()

    async def begin() -> tuple[str, str]:
        await manager.start()
        box = await manager.create_sandbox(SandboxType.NATIVE)
        return box, await manager.usable_sandbox(box).url(PORT)

    async def go_on(box: str, url: str) -> None:
        try:
            assert await manager.usable_sandbox(box).url(PORT) == url
            async with client() as web:
                assert (await web.get(url)).status_code == 502
        finally:
            await manager.stop()

    asyncio.run(go_on(*asyncio.run(begin())))


@pytest.mark.parametrize("port", [0, -1, 65_536])
async def test_what_is_no_port_has_no_address(native_backend: BackendFactory, port: int) -> None:
    async with LocalSandboxManager(backends={"native": native_backend}) as manager:
        box = await manager.create_sandbox(SandboxType.NATIVE)
        with pytest.raises(BadAddress):
            await manager.usable_sandbox(box).url(port)


async def test_a_served_sandbox_has_an_address_by_path_and_by_host(
    native_backend: BackendFactory,
) -> None:
    settings = ServerSettings(port=0, domain="box.example")
    backends = {"native": native_backend}
    async with serving(settings, backends=backends) as base, client() as web:
        made = await web.post(base + "/v1/sandboxes", json={"config": {"tools_config": TOOLS}})
        box = made.json()["id"]
        started = await web.post(
            f"{base}/v1/sandboxes/{box}/tools/shell_executor",
            json={"parameters": {"command": START}},
        )
        assert started.json()["status"] == "success", started.text
        assert (await web.get(f"{base}/p/{box}/{PORT}/a?b")).text == "/a?b"
        body = b"x" * 5_000_000
        host = {"Host": f"{PORT}-{box}.box.example"}
        assert (await web.post(base, content=body, headers=host)).content == body
        await web.delete(f"{base}/v1/sandboxes/{box}")
        assert (await web.get(f"{base}/p/{box}/{PORT}/")).status_code == 410


TOOLS: dict[str, dict[str, str]] = {"shell_executor": {}}
START = f"""
cat > server.py <<'END'
{SERVER}
END
nohup setsid python3 server.py > log 2>&1 &
until grep -q up log; do sleep 0.01; done
"""
