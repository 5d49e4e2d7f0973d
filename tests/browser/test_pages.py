"""What pages that sandboxes serve can and cannot do in a real browser."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from playwright.async_api import BrowserContext
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from sandpool.server import ServerSettings, serving
from tests.browser.chromium import browsing, open_page, run
from tests.integration.proxy.world import PORT, Machine

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.browser,
    pytest.mark.slow,
]

LIMIT = 60.0

PAGE = b"<!doctype html><title>page</title><p id=text>hello"
REPORT = b"a,b\n1,2\n"

SEEN: list[Request] = []


def answer(_: ServerConnection, request: Request) -> Response | None:
    """Serve the files of the sandbox; None: it is a WebSocket."""
    SEEN.append(request)
    if request.headers.get("Upgrade") is not None:
        return None
    name = request.path.partition("?")[0]
    headers = Headers({"Content-Type": "text/html", "Connection": "close"})
    body = PAGE
    if name == "/report.csv":
        headers = Headers({"Content-Type": "text/csv", "Connection": "close"})
        headers["Content-Disposition"] = 'attachment; filename="report.csv"'
        body = REPORT
    elif name == "/data":
        headers = Headers({"Content-Type": "application/json", "Connection": "close"})
        body = b'{"answer": 42}'
    elif name == "/sw.js":
        headers = Headers({"Content-Type": "text/javascript", "Connection": "close"})
        headers["Service-Worker-Allowed"] = "/"
        body = b"self.addEventListener('fetch', () => {})"
    elif name == "/cookie":
        headers["Set-Cookie"] = "stolen=1; Path=/"
        headers["Set-Cookie"] = "tossed=1; Path=/; Domain=localhost"
    headers["Content-Length"] = str(len(body))
    return Response(200, "OK", headers, body)


async def echo(connection: ServerConnection) -> None:
    """Serve a WebSocket."""
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def surroundings(
    home: Path, settings: ServerSettings
) -> AsyncIterator[tuple[httpx.AsyncClient, BrowserContext, Callable[[str], str]]]:
    """Run a server, one that stands in for a sandbox's, and a browser.

    Yields a client of the server's API, the browser, and what a URL of the server is to it.
    """
    SEEN.clear()
    machine = Machine()
    async with AsyncExitStack() as stack:
        inside = await stack.enter_async_context(
            serve(echo, "127.0.0.1", 0, process_request=answer)
        )
        machine.lead(PORT, *next(iter(inside.sockets)).getsockname())
        url = await stack.enter_async_context(
            serving(settings, backends={"native": machine.new_backend})
        )
        base = url.replace("127.0.0.1", "localhost")
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=base, verify=False, timeout=60)
        )
        browser = await stack.enter_async_context(browsing(home))
        yield client, browser, lambda path: base + path


async def address(client: httpx.AsyncClient, sandbox_id: str) -> str:
    """Make a sandbox and return the address of its port."""
    (await client.post("/v1/sandboxes", json={"id": sandbox_id})).raise_for_status()
    found: dict[str, Any] = (await client.get(f"/v1/sandboxes/{sandbox_id}/ports/{PORT}")).json()
    return str(found["url"])


BY_PATH = ServerSettings(port=0)
BY_HOST = ServerSettings(port=0, domain="localhost")

FORMS = pytest.mark.parametrize("settings", [BY_PATH, BY_HOST], ids=["path", "host"])


@FORMS
async def test_a_page_works_as_it_does_elsewhere(tmp_path: Path, settings: ServerSettings) -> None:
    async with surroundings(tmp_path, settings) as (client, browser, _):
        with anyio.fail_after(LIMIT):
            page = await open_page(browser, await address(client, "good"))
            assert await run(page, "return document.querySelector('#text').innerText") == "hello"
            fetched = "return (await (await fetch('data')).json()).answer"
            assert await run(page, fetched) == 42
            posted = """
                const answer = await fetch('data', {
                    method: 'GET', headers: {'X-Mine': '1', 'Content-Type': 'application/json'},
                });
                return answer.status;
            """
            assert await run(page, posted) == 200
            echoed = """
                const socket = new WebSocket(new URL('chat', location).href.replace('http', 'ws'));
                return await new Promise((resolve, reject) => {
                    socket.onopen = () => socket.send('ping');
                    socket.onmessage = (event) => resolve(event.data);
                    socket.onerror = () => reject(new Error('no socket'));
                });
            """
            assert await run(page, echoed) == "ping"


@FORMS
async def test_a_file_can_be_downloaded(tmp_path: Path, settings: ServerSettings) -> None:
    async with surroundings(tmp_path, settings) as (client, browser, _):
        with anyio.fail_after(LIMIT):
            page = await open_page(browser, await address(client, "good"))
            async with page.expect_download() as started:
                await run(
                    page,
                    """
                    const link = document.createElement('a');
                    link.href = 'report.csv';
                    document.body.append(link);
                    link.click();
                    """,
                )
            download = await started.value
            assert download.suggested_filename == "report.csv"
            assert (await download.path()).read_bytes() == REPORT


ATTACKS = {
    "fetch": "return (await fetch(API + '/v1/sandboxes')).status",
    "fetch with a method": """
        return (await fetch(API + '/v1/sandboxes', {
            method: 'POST', body: '{}', headers: {'Content-Type': 'application/json'},
        })).status""",
    "XMLHttpRequest": """
        return await new Promise((resolve, reject) => {
            const request = new XMLHttpRequest();
            request.open('GET', API + '/v1/sandboxes');
            request.onload = () => resolve(request.responseText);
            request.onerror = () => reject(new Error('refused'));
            request.send();
        })""",
    "a frame": """
        const frame = document.createElement('iframe');
        frame.src = API + '/v1/sandboxes';
        document.body.append(frame);
        await new Promise((resolve) => { frame.onload = resolve; });
        return frame.contentWindow.document.body.innerText""",
    "another sandbox": "return (await fetch(API + '/p/victim/8080/data')).status",
    "another sandbox's socket": """
        return await new Promise((resolve, reject) => {
            const socket = new WebSocket(API.replace('http', 'ws') + '/p/victim/8080/chat');
            socket.onopen = () => resolve('open');
            socket.onerror = () => reject(new Error('refused'));
        })""",
    "a service worker": """
        await navigator.serviceWorker.register(new URL('/sw.js', API).href, {scope: '/'});
        return 'registered'""",
}

CAUGHT = "try {{ {attack} }} catch (error) {{ return 'failed: ' + error.message }}"


@FORMS
async def test_a_hostile_page_cannot_use_the_api(tmp_path: Path, settings: ServerSettings) -> None:
    async with surroundings(tmp_path, settings) as (client, browser, outside):
        await address(client, "victim")
        with anyio.fail_after(LIMIT):
            page = await open_page(browser, await address(client, "hostile"))
            for name, attack in ATTACKS.items():
                script = f"const API = {outside('')!r};" + CAUGHT.format(attack=attack)
                outcome = str(await run(page, script))
                assert outcome.startswith("failed: "), f"{name}: {outcome}"
            # What it can send without being told the answer does nothing either.
            await run(
                page,
                f"""
                await fetch({outside("/v1/sandboxes")!r}, {{method: 'POST', mode: 'no-cors'}});
                const frame = document.createElement('iframe');
                frame.name = 'sink';
                document.body.append(frame);
                const form = document.createElement('form');
                form.method = 'post';
                form.action = {outside("/v1/cleanup")!r};
                form.target = 'sink';
                document.body.append(form);
                const loaded = new Promise((resolve) => {{ frame.onload = resolve; }});
                form.submit();
                await loaded;
            """,
            )
        left = (await client.get("/v1/sandboxes")).json()["items"]
        assert sorted(box["id"] for box in left) == ["hostile", "victim"]


@FORMS
async def test_cookies_stay_with_the_port_that_set_them(
    tmp_path: Path, settings: ServerSettings
) -> None:
    async with surroundings(tmp_path, settings) as (client, browser, _):
        with anyio.fail_after(LIMIT):
            url = await address(client, "setter")
            await open_page(browser, url + "cookie")
            await open_page(browser, url + "mine")
            await open_page(browser, await address(client, "other"))
    sent = {request.path: request.headers.get_all("Cookie") for request in SEEN}
    assert sent["/mine"] == ["stolen=1; tossed=1"]
    assert sent["/"] == []


async def test_a_page_that_shares_its_origin_has_no_storage_there(tmp_path: Path) -> None:
    async with surroundings(tmp_path, BY_PATH) as (client, browser, _):
        with anyio.fail_after(LIMIT):
            page = await open_page(browser, await address(client, "good"))
            assert await run(page, "return String(window.origin)") == "null"
            for attack in ("return localStorage.length", "return document.cookie"):
                outcome = str(await run(page, CAUGHT.format(attack=attack)))
                assert outcome.startswith("failed: "), outcome
