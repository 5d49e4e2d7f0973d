"""A sandbox's files: read and written in pieces, listed, moved and removed; trees as archives."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any
from urllib.parse import quote

import anyio
from fastapi import APIRouter, Query, Request, Response
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from sandpool.errors import PayloadTooLarge, Unsupported
from sandpool.manager.local_sandbox import LocalSandbox
from sandpool.models import DirEntry
from sandpool.server.context import CurrentSandbox
from sandpool.server.settings import ServerSettings
from sandpool.wire import problems
from sandpool.wire.files import (
    LONGEST_PATH,
    MODE_PATTERN,
    Move,
    NewDirectory,
    Written,
    parse_mode,
)

router = APIRouter(
    prefix="/v1/sandboxes/{sandbox_id}", tags=["files"], responses=problems.RESPONSES
)

_BYTES = "application/octet-stream"
_TAR = "application/x-tar"
_DEEPEST = 64
"""Levels that one listing goes down."""

_FilePath = Annotated[
    str,
    Query(
        alias="path",
        min_length=1,
        max_length=LONGEST_PATH,
        description="A path inside; a relative one starts at the working directory.",
    ),
]


def _contents(media_type: str) -> dict[str, Any]:
    return {media_type: {"schema": {"type": "string", "format": "binary"}}}


_UPLOAD = {"requestBody": {"required": True, "content": _contents(_BYTES)}}


class Download(StreamingResponse):
    """A file on its way out; however the answer ends, the transfer in the sandbox is ended."""

    def __init__(self, ready: bytes, rest: AsyncGenerator[bytes], headers: dict[str, str]) -> None:
        """Answer with what is read already, and then the rest."""
        super().__init__(_chain(ready, rest), headers=headers, media_type=_BYTES)
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        async with aclosing(self._rest):
            await super().__call__(scope, receive, send)


@router.get("/files", response_class=Response, responses={200: {"content": _contents(_BYTES)}})
async def read_file(path: _FilePath, sandbox: CurrentSandbox) -> Response:
    """Return a file's bytes, as they are read.

    The length is named only where all of the file has been read when the answer begins: a longer
    one may grow, shrink or be replaced on the way.  An answer that breaks off is not whole.
    """
    headers = _attachment(path)
    pieces = _closable(sandbox.files.stream(path))
    try:
        # The first pieces are read before the answer begins: until then an error has a status.
        first = await anext(pieces, b"")
        second = await anext(pieces, b"") if first else b""
    except BaseException:
        # Cancel: the client has left.
        await pieces.aclose()
        raise
    if not second:
        return Response(first, headers=headers, media_type=_BYTES)
    return Download(first + second, pieces, headers)


@router.put("/files", openapi_extra=_UPLOAD)
async def write_file(
    path: _FilePath,
    sandbox: CurrentSandbox,
    request: Request,
    mode: Annotated[
        str | None, Query(pattern=MODE_PATTERN, description="Permission bits, in octal.")
    ] = None,
) -> Written:
    """Write the body to a file and make its parents: all of it, or the old file stays."""
    content = _uploaded(request)
    return Written(size=await sandbox.files.write(path, content, mode=parse_mode(mode)))


@router.post("/files/append", openapi_extra=_UPLOAD)
async def append_file(path: _FilePath, sandbox: CurrentSandbox, request: Request) -> Written:
    """Add the body, which is no longer than that of a call that is no upload, to a file."""
    settings: ServerSettings = request.app.state.settings
    content = bytearray()
    async for piece in _uploaded(request):
        content += piece
        if len(content) > settings.max_body:
            raise PayloadTooLarge(
                f"more than the {settings.max_body} bytes that can be appended at once"
            )
    return Written(size=await sandbox.files.append(path, bytes(content)))


@router.get("/files/list")
async def list_directory(
    sandbox: CurrentSandbox,
    path: _FilePath = ".",
    depth: Annotated[int, Query(ge=1, le=_DEEPEST, description="Levels to go down.")] = 1,
) -> list[DirEntry]:
    """List a directory, sorted by path."""
    return await sandbox.files.list(path, depth=depth)


@router.get("/files/stat")
async def describe_file(path: _FilePath, sandbox: CurrentSandbox) -> DirEntry:
    """Describe what a path leads to."""
    return await sandbox.files.stat(path)


@router.post("/files/mkdir", status_code=204)
async def make_directory(sandbox: CurrentSandbox, body: NewDirectory) -> None:
    """Make a directory and its parents; one that is there is fine."""
    await sandbox.files.mkdir(body.path)


@router.post("/files/move", status_code=204)
async def move_file(sandbox: CurrentSandbox, body: Move) -> None:
    """Rename; a file at the target is replaced."""
    await sandbox.files.move(body.source, body.target)


@router.delete("/files", status_code=204)
async def remove_file(
    path: _FilePath,
    sandbox: CurrentSandbox,
    *,
    recursive: Annotated[bool, Query(description="Remove a directory and all in it.")] = False,
    missing_ok: Annotated[bool, Query(description="It is fine if nothing is there.")] = False,
) -> None:
    """Remove a file, a link, or a directory."""
    await sandbox.files.remove(path, recursive=recursive, missing_ok=missing_ok)


@router.get("/archive", response_class=Response, responses={200: {"content": _contents(_TAR)}})
async def read_archive(path: _FilePath, sandbox: CurrentSandbox) -> Response:
    """Return a tar archive of a file or a tree; it is packed before the answer begins."""
    if not isinstance(sandbox, LocalSandbox):
        raise Unsupported(f"a {sandbox.sandbox_type.value} sandbox gives no archives")
    packed = await sandbox.get_archive(path)
    return Response(packed, headers=_attachment(f"{path.rstrip('/')}.tar"), media_type=_TAR)


def _attachment(path: str) -> dict[str, str]:
    """Return headers by which no browser takes a sandbox's file for a page of the server's."""
    name = quote(path.rpartition("/")[2], safe="")
    return {
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }


async def _uploaded(request: Request) -> AsyncGenerator[bytes]:
    """Iterate over a request's body.  Whoever has left half-way gets no answer."""
    try:
        async for piece in request.stream():
            yield piece
    except ClientDisconnect:
        # The layer around the routes cancels this request; that undoes what it has begun.
        await anyio.sleep_forever()


async def _closable(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    try:
        async for piece in pieces:
            yield piece
    finally:
        # Not left to the garbage collector: the transfer ends with the answer.
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


async def _chain(ready: bytes, rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    yield ready
    async for piece in rest:
        yield piece
