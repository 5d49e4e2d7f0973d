"""The Tensorlake dialect's WebSockets: terminals, and tunnels to ports inside."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import httpx
import pytest
from websockets import ConnectionClosed, InvalidStatus
from websockets.asyncio.client import connect

from sandpool.server import ServerSettings, serving

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

NAMESPACED = "/v1/namespaces/default"
SLEEP = {"command": "sleep", "args": ["1000"]}


def within(sandbox_id: str) -> dict[str, str]:
    return {"X-Tensorlake-Sandbox-Id": sandbox_id}


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """Return where a server is that makes real sandboxes."""
    async with serving(ServerSettings(port=0)) as found:
        yield found


async def make(url: str) -> str:
    async with httpx.AsyncClient(
        base_url=url + NAMESPACED, trust_env=False, verify=False, timeout=60
    ) as client:
        sandbox_id = str((await client.post("/sandboxes", json={})).json()["sandbox_id"])
        # The answer does not wait for longer than clients do.
        while (await client.get(f"/sandboxes/{sandbox_id}")).json()["status"] == "pending":
            await anyio.lowlevel.checkpoint()
        return sandbox_id


def websocket(url: str, path: str, sandbox_id: str, **headers: str) -> connect:
    return connect(
        url.replace("http", "ws", 1) + path,
        additional_headers={**within(sandbox_id), **headers},
        proxy=None,
    )


async def test_a_terminal_sends_what_its_command_writes_and_then_its_exit(url: str) -> None:
    sandbox_id = await make(url)
    async with httpx.AsyncClient(
        base_url=url, headers=within(sandbox_id), verify=False, timeout=60
    ) as client:
        answer = await client.post("/api/v1/pty", json={"command": "echo", "args": ["seen"]})
        assert answer.status_code == 201
        opened = answer.json()
        path = f"/api/v1/pty/{opened['session_id']}/ws"
        async with websocket(url, f"{path}?token={opened['token']}", sandbox_id) as attached:
            *frames, last = [bytes(frame) async for frame in attached if isinstance(frame, bytes)]
            assert b"".join(frame[1:] for frame in frames).strip() == b"seen"
            assert {frame[0] for frame in frames} == {0}
            assert last == bytes([3, 0, 0, 0, 0])
            assert attached.close_reason == "exit:0"
        gone = await client.delete(f"/api/v1/pty/{opened['session_id']}")
        assert gone.status_code == 404


async def test_a_terminal_is_attached_to_by_one_client_that_has_its_token(url: str) -> None:
    sandbox_id = await make(url)
    async with httpx.AsyncClient(
        base_url=url, headers=within(sandbox_id), verify=False, timeout=60
    ) as client:
        opened = (await client.post("/api/v1/pty", json=SLEEP)).json()
    path = f"/api/v1/pty/{opened['session_id']}/ws"
    token = {"X-PTY-Token": opened["token"]}
    for headers in ({}, {"X-PTY-Token": "another"}):
        with pytest.raises(InvalidStatus) as refused:
            async with websocket(url, path, sandbox_id, **headers):
                pass
        assert refused.value.response.status_code == 404
    async with websocket(url, path, sandbox_id, **token):
        with pytest.raises(InvalidStatus) as refused:
            async with websocket(url, path, sandbox_id, **token):
                pass
        assert refused.value.response.status_code == 400


async def test_a_terminal_ends_with_its_sandbox(url: str) -> None:
    sandbox_id = await make(url)
    async with httpx.AsyncClient(
        base_url=url, headers=within(sandbox_id), verify=False, timeout=60
    ) as client:
        opened = (await client.post("/api/v1/pty", json=SLEEP)).json()
        path = f"/api/v1/pty/{opened['session_id']}/ws"
        token = {"X-PTY-Token": opened["token"]}
        async with websocket(url, path, sandbox_id, **token) as attached:
            async with httpx.AsyncClient(
                base_url=url + NAMESPACED, verify=False, timeout=60
            ) as control:
                assert (await control.delete(f"/sandboxes/{sandbox_id}")).status_code == 200
            with pytest.raises(ConnectionClosed):
                await attached.recv()
            assert attached.close_reason == "session terminated"


async def test_a_tunnel_to_where_nothing_listens_is_refused(url: str) -> None:
    sandbox_id = await make(url)
    with pytest.raises(InvalidStatus) as refused:
        async with websocket(url, "/api/v1/tunnels/tcp?port=9", sandbox_id):
            pass
    assert refused.value.response.status_code == 502


async def test_a_program_may_name_the_servers_address_as_its_origin_and_no_other(url: str) -> None:
    sandbox_id = await make(url)
    host = f"{sandbox_id}.local"
    async with httpx.AsyncClient(
        base_url=url, headers={"Host": host}, verify=False, timeout=60
    ) as client:
        for origin, status in ((url, 200), (f"http://{host}", 403), ("http://127.0.0.1:1", 403)):
            answer = await client.get("/api/v1/health", headers={"Origin": origin})
            assert answer.status_code == status
