"""The files of a sandbox over HTTP, as any client can call them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator

import anyio
import anyio.lowlevel
import httpx
import pytest
from starlette.types import Message

from sandpool.server import ServerSettings, serving
from sandpool.server.routes.files import Download
from sandpool.testing import FakeBackend
from tests.integration.server.conftest import SMALL, Place

pytestmark = pytest.mark.anyio

BINARY = bytes(range(256)) * 300
"""More than a piece, and no text."""


async def pieces(content: bytes, size: int = 10_000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


async def test_what_was_written_is_read(place: Place) -> None:
    written = await place.call("PUT", "/files", params={"path": "a/b.bin"}, content=BINARY)
    assert (written.status_code, written.json()) == (200, {"size": len(BINARY)})
    read = await place.call("GET", "/files", params={"path": "a/b.bin"})
    assert (read.status_code, read.content) == (200, BINARY)


async def test_a_body_without_a_length_is_written_as_it_comes(place: Place) -> None:
    params = {"path": "/tmp/streamed"}
    written = await place.call("PUT", "/files", params=params, content=pieces(BINARY))
    assert written.json() == {"size": len(BINARY)}
    assert (await place.call("GET", "/files", params=params)).content == BINARY


async def test_no_browser_takes_a_file_for_a_page_of_the_servers(place: Place) -> None:
    path = {"path": '/tmp/page "1".html'}
    await place.call("PUT", "/files", params=path, content=b"<script>alert(1)</script>")
    headers = (await place.call("GET", "/files", params=path)).headers
    assert headers["content-type"] == "application/octet-stream"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-disposition"] == "attachment; filename*=UTF-8''page%20%221%22.html"


async def test_a_length_is_named_where_it_is_certain(place: Place) -> None:
    await place.call("PUT", "/files", params={"path": "small"}, content=b"12345")
    await place.call("PUT", "/files", params={"path": "empty"}, content=b"")
    await place.call("PUT", "/files", params={"path": "large"}, content=BINARY * 4)
    lengths = [
        (await place.call("GET", "/files", params={"path": path})).headers.get("content-length")
        for path in ("small", "empty", "large")
    ]
    assert lengths == ["5", "0", None]


@pytest.mark.parametrize(("mode", "kept"), [("600", 0o600), ("0755", 0o755)])
async def test_permission_bits_are_octal(place: Place, mode: str, kept: int) -> None:
    await place.call("PUT", "/files", params={"path": "f", "mode": mode}, content=b"")
    assert (await place.call("GET", "/files/stat", params={"path": "f"})).json()["mode"] == kept


async def test_what_is_appended_comes_after(place: Place) -> None:
    for content in (b"one ", b"two"):
        answer = await place.call("POST", "/files/append", params={"path": "log"}, content=content)
        assert answer.json() == {"size": len(content)}
    assert (await place.call("GET", "/files", params={"path": "log"})).content == b"one two"


async def test_directories_are_made_listed_moved_and_removed(place: Place) -> None:
    made = await place.call("POST", "/files/mkdir", json={"path": "/tmp/top/sub"})
    await place.call("PUT", "/files", params={"path": "/tmp/top/sub/f"}, content=b"x")

    async def names(depth: int) -> list[str]:
        params = {"path": "/tmp/top", "depth": depth}
        found = await place.call("GET", "/files/list", params=params)
        return [entry["path"] for entry in found.json()]

    assert (made.status_code, await names(1)) == (204, ["/tmp/top/sub"])
    assert await names(2) == ["/tmp/top/sub", "/tmp/top/sub/f"]
    move = {"source": "/tmp/top/sub/f", "target": "/tmp/top/g"}
    assert (await place.call("POST", "/files/move", json=move)).status_code == 204
    assert await names(2) == ["/tmp/top/g", "/tmp/top/sub"]
    params = {"path": "/tmp/top", "recursive": "true"}
    assert (await place.call("DELETE", "/files", params=params)).status_code == 204
    assert code(await place.call("DELETE", "/files", params=params)) == (404, "file_missing")
    params["missing_ok"] = "true"
    assert (await place.call("DELETE", "/files", params=params)).status_code == 204


@pytest.mark.parametrize(
    ("method", "below", "path"),
    [("GET", "/files", "absent"), ("GET", "/files/stat", "absent"), ("GET", "/archive", "absent")],
)
async def test_what_is_absent_is_named(place: Place, method: str, below: str, path: str) -> None:
    answer = await place.call(method, below, params={"path": path})
    assert code(answer) == (404, "file_missing")
    assert (answer.json()["errno"], answer.json()["path"].endswith("absent")) == (2, True)


async def test_a_directory_is_no_file(place: Place) -> None:
    answer = await place.call("GET", "/files", params={"path": "/tmp"})
    assert (*code(answer), answer.json()["errno"]) == (422, "file_failed", 21)


@pytest.mark.parametrize("place", ["fake"], indirect=True)
@pytest.mark.parametrize(
    ("method", "below", "params"),
    [
        ("GET", "/files", {}),
        ("GET", "/files", {"path": ""}),
        ("GET", "/files", {"path": "x" * 5000}),
        ("PUT", "/files", {"path": "f", "mode": "999"}),
        ("PUT", "/files", {"path": "f", "mode": "rw"}),
        ("GET", "/files/list", {"path": ".", "depth": "0"}),
        ("GET", "/files/list", {"path": ".", "depth": "1000"}),
    ],
)
async def test_a_malformed_call_is_refused(
    place: Place, method: str, below: str, params: dict[str, str]
) -> None:
    assert code(await place.call(method, below, params=params)) == (422, "invalid_spec")


@pytest.mark.parametrize("has_length", [True, False])
async def test_an_upload_that_is_too_long_leaves_the_old_file(
    place: Place, *, has_length: bool
) -> None:
    await place.call("PUT", "/files", params={"path": "f"}, content=b"old")
    content = b"x" * (SMALL.max_upload + 1)
    body = content if has_length else pieces(content, 65_536)
    answer = await place.call("PUT", "/files", params={"path": "f"}, content=body)
    assert code(answer) == (413, "payload_too_large")
    assert (await place.call("GET", "/files", params={"path": "f"})).content == b"old"


async def test_what_is_appended_at_once_is_bounded(place: Place) -> None:
    content = b"x" * (SMALL.max_body + 1)
    answer = await place.call("POST", "/files/append", params={"path": "f"}, content=content)
    assert code(answer) == (413, "payload_too_large")
    assert code(await place.call("GET", "/files", params={"path": "f"})) == (404, "file_missing")


async def test_an_archive_holds_a_tree(place: Place) -> None:
    await place.call("PUT", "/files", params={"path": "/tmp/t/sub/f"}, content=BINARY)
    answer = await place.call("GET", "/archive", params={"path": "/tmp/t"})
    assert answer.headers["content-type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as packed:
        content = packed.extractfile("t/sub/f")
        assert content is not None
        assert (packed.getnames(), content.read()) == (["t", "t/sub", "t/sub/f"], BINARY)


async def test_an_archive_that_was_read_can_be_unpacked(place: Place) -> None:
    await place.call("PUT", "/files", params={"path": "/tmp/t/f"}, content=BINARY)
    packed = (await place.call("GET", "/archive", params={"path": "/tmp/t"})).content
    params = {"target_dir": "/tmp/copy"}
    assert (await place.call("PUT", "/archive", params=params, content=packed)).status_code == 204
    copy = await place.call("GET", "/files", params={"path": "/tmp/copy/t/f"})
    assert copy.content == BINARY


async def test_a_client_that_stalls_in_an_upload_is_cut_off() -> None:
    settings = ServerSettings(port=0, body_timeout=0.5)
    async with (
        serving(settings, backends={"native": FakeBackend}) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, verify=False, timeout=30) as client,
    ):
        sandbox_id = (await client.post("/v1/sandboxes")).json()["id"]
        place = Place(client, f"/v1/sandboxes/{sandbox_id}")
        await place.call("PUT", "/files", params={"path": "f"}, content=b"old")
        # httpx reads no answer before it has sent the body, so the request is written by hand.
        request = (
            f"PUT {place.path}/files?path=f HTTP/1.1\r\nHost: {client.base_url.netloc.decode()}\r\n"
            "Content-Length: 1000\r\n\r\nnew"
        )
        async with await anyio.connect_tcp("127.0.0.1", client.base_url.port or 0) as stream:
            await stream.send(request.encode())
            assert (await stream.receive()).startswith(b"HTTP/1.1 408 ")
        assert (await place.call("GET", "/files", params={"path": "f"})).content == b"old"


@pytest.mark.parametrize("place", ["native"], indirect=True)
@pytest.mark.namespaces
async def test_an_upload_that_breaks_off_leaves_the_old_file_and_nothing_else(
    place: Place,
) -> None:
    await place.call("PUT", "/files", params={"path": "/tmp/d/f"}, content=b"old")

    async def count() -> int:
        listing = await place.call("GET", "/files/list", params={"path": "/tmp/d"})
        return len(listing.json())

    base = place.client.base_url
    request = (
        f"PUT {place.path}/files?path=/tmp/d/f HTTP/1.1\r\nHost: {base.netloc.decode()}\r\n"
        "Content-Length: 100000\r\n\r\n"
    )
    async with await anyio.connect_tcp("127.0.0.1", base.port or 0) as stream:
        await stream.send(request.encode() + b"x" * 50_000)
        while await count() == 1:
            await anyio.lowlevel.checkpoint()
    while await count() != 1:
        await anyio.lowlevel.checkpoint()
    assert (await place.call("GET", "/files", params={"path": "/tmp/d/f"})).content == b"old"


async def test_a_download_that_nobody_takes_ends_its_transfer() -> None:
    has_ended = anyio.Event()
    is_sending = anyio.Event()

    async def endless() -> AsyncGenerator[bytes]:
        try:
            while True:
                yield b"x"
        finally:
            has_ended.set()

    async def receive() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    async def send(_: Message) -> None:
        is_sending.set()
        await anyio.sleep_forever()

    rest = endless()
    first = await anext(rest)
    answer = Download(first, rest, {})
    async with anyio.create_task_group() as group:
        group.start_soon(answer, {"type": "http"}, receive, send)
        await is_sending.wait()
        group.cancel_scope.cancel()
    assert has_ended.is_set()


async def test_files_of_another_namespace_are_not_there() -> None:
    settings = ServerSettings(port=0)
    async with (
        serving(settings, backends={"native": FakeBackend}) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, verify=False, timeout=60) as client,
    ):
        answer = await client.get("/v1/sandboxes/nobody/files", params={"path": "f"})
        assert code(answer) == (404, "sandbox_not_found")
