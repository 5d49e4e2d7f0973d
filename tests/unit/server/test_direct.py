"""Serving a route directly: the answers are the framework's, to the byte."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandpool.errors import NoCapacity, SandpoolError
from sandpool.server.direct import Direct, Unusual
from sandpool.server.index import Index

pytestmark = pytest.mark.anyio


class Order(BaseModel):
    item: str = Field(max_length=8)
    count: int = 1


class Receipt(BaseModel):
    total: int
    note: str | None = None


class Broken(Response):
    """An answer that fails, before or after it has begun."""

    def __init__(self, error: Exception, *, has_begun: bool) -> None:
        super().__init__()
        self._error = error
        self._has_begun = has_begun

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._has_begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise self._error


async def count(connection: HTTPConnection) -> int:
    connection.app.state.counted += 1
    return int(connection.app.state.counted)


Count = Annotated[int, Depends(count)]


async def find(number: Count, thing: Annotated[str, Path(max_length=5)]) -> str:
    if thing == "none":
        raise NoCapacity("there is none", retry_after=2.5)
    return f"{thing}{number}"


Thing = Annotated[str, Depends(find)]


async def open_and_close() -> AsyncGenerator[int]:
    yield 1


def make_app() -> FastAPI:
    app = FastAPI(redirect_slashes=False)
    app.state.counted = 0

    @app.get("/things/{thing}")
    async def read(
        thing: Thing,
        number: Count,
        size: Annotated[int | None, Query(ge=1)] = None,
        x_color: Annotated[str, Header()] = "red",
    ) -> list[str | int | None]:
        return [thing, number, size, x_color]

    @app.post("/things/{thing}/orders", status_code=201)
    async def order(thing: Thing, response: Response, body: Order, *, dry: bool = False) -> Receipt:
        response.headers["Location"] = f"/{thing}"
        return Receipt(total=0 if dry else body.count)

    @app.post("/things/{thing}/maybe")
    async def maybe(thing: Thing, body: Order | None = None) -> dict[str, Any]:
        return {"thing": thing, "body": body, "bytes": b"x"}

    @app.delete("/things/{thing}", status_code=204)
    async def remove(thing: Thing) -> None:
        pass

    add_answers(app)
    add_failures(app)
    return app


def add_answers(app: FastAPI) -> None:
    """Add routes that make their answers themselves, or say nothing of them."""

    @app.get("/text", response_class=PlainTextResponse)
    async def text(request: Request) -> Response:
        return PlainTextResponse(request.url.path, headers={"x-a": "b"})

    @app.get("/stream")
    async def stream() -> Response:
        async def pieces() -> AsyncGenerator[bytes]:
            yield b"a"
            yield b"b"

        return StreamingResponse(pieces())

    @app.get("/untyped")
    async def untyped():  # type: ignore[no-untyped-def]
        return {"a": Order(item="b")}

    @app.post("/echo")
    async def echo(request: Request) -> dict[str, str]:
        return {"body": (await request.body()).decode()}


def add_failures(app: FastAPI) -> None:
    """Add routes that fail."""

    @app.get("/refused")
    async def refused() -> str:
        raise HTTPException(405, "not so", {"Allow": "POST"})

    @app.get("/wrong")
    async def wrong() -> int:
        return "no number"  # type: ignore[return-value]

    @app.get("/fault")
    async def fault() -> str:
        raise RuntimeError("a fault")

    @app.get("/broken/{when}")
    async def broken(when: str) -> Response:
        return Broken(NoCapacity("gone"), has_begun=when == "late")

    async def answer_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, SandpoolError)
        return PlainTextResponse(f"{error.code}: {error}", 503)

    app.add_exception_handler(SandpoolError, answer_error)


CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/things/a", {}),
    ("GET", "/things/a?size=3&size=4&other=1", {"headers": {"X-Color": "blue"}}),
    ("GET", "/things/a?size=0", {}),
    ("GET", "/things/a?size=x", {}),
    ("GET", "/things/a?size=", {}),
    ("GET", "/things/longer?size=x", {}),
    ("GET", "/things/a%20b", {}),
    ("GET", "/things/none", {}),
    ("HEAD", "/things/a", {}),
    ("PATCH", "/things/a", {}),
    ("DELETE", "/things/a", {}),
    ("POST", "/things/a/orders", {"json": {"item": "x", "count": 2}}),
    ("POST", "/things/a/orders?dry=1", {"json": {"item": "x"}}),
    ("POST", "/things/a/orders?dry=perhaps", {"json": {"item": "x"}}),
    ("POST", "/things/a/orders", {"json": {"item": "far too long"}}),
    ("POST", "/things/longer/orders", {"json": {"count": "x"}}),
    ("POST", "/things/none/orders", {"json": {"item": "x"}}),
    ("POST", "/things/none/orders", {"json": {}}),
    ("POST", "/things/a/orders", {}),
    ("POST", "/things/a/orders", {"json": None, "content": b"null"}),
    ("POST", "/things/a/maybe", {}),
    ("POST", "/things/a/maybe", {"json": {"item": "x"}}),
    ("POST", "/things/a/maybe", {"json": [1]}),
    *(
        (
            "POST",
            "/things/a/maybe",
            {"content": content, "headers": {"Content-Type": kind}},
        )
        for content in (
            b"null",
            b"{",
            b"{}",
            b"\xff",
            b'{"item": "x", "count": NaN}',
            b"  ",
            b"[" * 100_000,
        )
        for kind in ("application/json", "application/json; charset=utf-8", "text/plain", "")
    ),
    ("POST", "/things/a/maybe", {"content": b'{"item": "x"}'}),
    ("GET", "/text", {}),
    ("GET", "/stream", {}),
    ("GET", "/untyped", {}),
    ("POST", "/echo", {"content": b"some bytes"}),
    ("GET", "/refused", {}),
    ("GET", "/wrong", {}),
    ("GET", "/fault", {}),
    ("GET", "/broken/early", {}),
    ("GET", "/broken/late", {}),
    ("GET", "/nowhere", {}),
]


async def ask(app: FastAPI, entry: ASGIApp, method: str, path: str, **request: Any) -> object:
    """Return what was sent, whether it failed, and how often the dependency was called."""
    sent: list[Message] = []
    has_raised = False

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal has_raised

        async def record(message: Message) -> None:
            sent.append(message)
            await send(message)

        try:
            await entry(scope, receive, record)
        except Exception:
            has_raised = True
            raise

    transport = httpx.ASGITransport(watched, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        await client.request(method, path, **request)
    return sent, has_raised, app.state.counted


@pytest.mark.parametrize(("method", "path", "request_"), CASES)
async def test_what_is_served_directly_is_answered_as_the_framework_would(
    method: str, path: str, request_: dict[str, Any]
) -> None:
    theirs, ours = make_app(), make_app()
    expected = await ask(theirs, theirs, method, path, **request_)
    assert await ask(ours, Index(ours), method, path, **request_) == expected


async def test_a_route_that_uses_more_of_the_framework_is_left_to_it() -> None:
    app = FastAPI()

    @app.get("/generator")
    async def generator(value: Annotated[int, Depends(open_and_close)]) -> int:
        return value

    @app.get("/thread")
    def thread() -> int:
        return 1

    @app.get("/list")
    async def several(value: Annotated[list[int], Query()]) -> int:
        return sum(value)

    @app.get("/nothing", response_model_exclude_none=True)
    async def nothing() -> Receipt:
        return Receipt(total=1)

    @app.post("/two")
    async def two(one: Order, other: Order) -> int:
        return one.count + other.count

    index = Index(app)
    transport = httpx.ASGITransport(index)
    for route in app.routes:
        if isinstance(route, APIRoute):
            with pytest.raises(Unusual):
                Direct(route)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        assert (await client.get("/generator")).json() == 1
        assert (await client.get("/thread")).json() == 1
        assert (await client.get("/list?value=1&value=2")).json() == 3
        assert (await client.get("/nothing")).json() == {"total": 1}
        orders = {"one": {"item": "a"}, "other": {"item": "b"}}
        assert (await client.post("/two", json=orders)).json() == 2
