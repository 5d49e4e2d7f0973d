"""Finding a route in one look: the same one that the framework would have found."""

from __future__ import annotations

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp

from sandpool.server.index import Index

pytestmark = pytest.mark.anyio


def make_app(*, indexed: bool) -> ASGIApp:
    app = FastAPI(redirect_slashes=False)
    router = app.router

    @router.get("/things/first")
    async def first() -> str:
        return "first"

    @router.get("/things/{thing}")
    async def one(thing: str) -> str:
        return f"one {thing}"

    @router.delete("/things/{thing}")
    async def remove(thing: str) -> str:
        return f"remove {thing}"

    @router.get("/a.b/{thing}/{part}")
    async def part(thing: str, part: str) -> str:
        return f"part {thing} {part}"

    @router.get("/files/{path:path}")
    async def deep(path: str) -> str:
        return f"deep {path}"

    inside = APIRouter()

    @inside.get("/inside/{thing}")
    async def within(thing: str) -> str:
        return f"within {thing}"

    app.include_router(inside)
    return Index(app) if indexed else app


@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD", "POST"])
@pytest.mark.parametrize(
    "path",
    [
        "/things/first",
        "/things/x",
        "/things/x%20y",
        "/things/x%2Fy",
        "/things/",
        "/things/x/",
        "/things/x%0A",
        "/a.b/x/y",
        "/aXb/x/y",
        "/files/x/y",
        "/inside/x",
        "/nowhere",
        "/",
    ],
)
async def test_an_index_finds_what_its_router_would(method: str, path: str) -> None:
    answers: list[tuple[int, str, str | None]] = []
    for indexed in (False, True):
        transport = httpx.ASGITransport(make_app(indexed=indexed))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            answer = await client.request(method, path)
            answers.append((answer.status_code, answer.text, answer.headers.get("allow")))
    assert answers[0] == answers[1]
