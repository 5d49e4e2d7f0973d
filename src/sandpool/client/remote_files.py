"""`RemoteFiles`: the files of a sandbox of a server."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, AsyncIterator

from sandpool.client import answers
from sandpool.client.calls import Params
from sandpool.client.transport import Transport, segment
from sandpool.errors import FileFailed, FileTooLarge
from sandpool.models import DirEntry
from sandpool.wire.files import ENTRIES, Move, NewDirectory, Written, format_mode

_ABSENT = (errno.ENOENT, errno.ENOTDIR)


class RemoteFiles:
    """The files of one sandbox of a server; implements `service.Files`."""

    def __init__(self, transport: Transport, sandbox_id: str, lease_id: str | None) -> None:
        """Name the sandbox, and the lease through which it is used; nothing is called yet."""
        self._transport = transport
        self._path = f"/v1/sandboxes/{segment(sandbox_id)}/files"
        self._lease_id = lease_id

    async def read(self, path: str, *, max_size: int | None = None) -> bytes:
        """Return a file's bytes; `FileTooLarge` past `max_size` bytes."""
        content = bytearray()
        async with self._transport.stream(
            "GET", self._path, params={"path": path}, lease_id=self._lease_id
        ) as pieces:
            async for piece in pieces:
                content += piece
                if max_size is not None and len(content) > max_size:
                    raise FileTooLarge(f"{path} has more than {max_size} bytes")
        return bytes(content)

    async def read_text(self, path: str, *, encoding: str = "utf-8") -> str:
        """Return a file's text."""
        return (await self.read(path)).decode(encoding)

    async def stream(self, path: str) -> AsyncGenerator[bytes]:
        """Iterate over a file's bytes in pieces; closing the iterator ends the transfer."""
        async with self._transport.stream(
            "GET", self._path, params={"path": path}, lease_id=self._lease_id
        ) as pieces:
            async for piece in pieces:
                yield piece

    async def write(
        self, path: str, data: bytes | str | AsyncIterator[bytes], *, mode: int | None = None
    ) -> int:
        """Write a file, making its parents, whole or not at all; return the bytes written."""
        content = data.encode() if isinstance(data, str) else data
        params: Params = {"path": path, "mode": format_mode(mode)}
        return await self._write("PUT", "", content, params)

    async def append(self, path: str, data: bytes | str) -> int:
        """Add to a file, making it if it is absent; return the bytes written.

        It is sent once: a call whose answer is lost may have been served.
        """
        content = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
        return await self._write("POST", "/append", bytes(content), {"path": path})

    async def list(self, path: str = ".", *, depth: int = 1) -> list[DirEntry]:
        """List a directory, sorted by path."""
        response = await self._transport.call(
            "GET",
            f"{self._path}/list",
            params={"path": path, "depth": depth},
            lease_id=self._lease_id,
        )
        return answers.parse_as(ENTRIES, response.content)

    async def stat(self, path: str) -> DirEntry:
        """Describe one path, following links."""
        response = await self._transport.call(
            "GET", f"{self._path}/stat", params={"path": path}, lease_id=self._lease_id
        )
        return answers.parse(DirEntry, response.content)

    async def exists(self, path: str) -> bool:
        """Whether the path is there."""
        try:
            await self.stat(path)
        except FileFailed as error:
            if error.errno in _ABSENT:
                return False
            raise
        return True

    async def mkdir(self, path: str) -> None:
        """Make a directory and its parents; one that is there is fine."""
        body = answers.body(NewDirectory, path=path)
        await self._transport.call(
            "POST", f"{self._path}/mkdir", json=body, lease_id=self._lease_id
        )

    async def move(self, source: str, target: str) -> None:
        """Rename; an existing file at the target is replaced."""
        body = answers.body(Move, source=source, target=target)
        await self._transport.call("POST", f"{self._path}/move", json=body, lease_id=self._lease_id)

    async def remove(self, path: str, *, recursive: bool = False, missing_ok: bool = False) -> None:
        """Remove a file, a link, or with `recursive` a directory tree."""
        await self._transport.call(
            "DELETE",
            self._path,
            params={"path": path, "recursive": recursive, "missing_ok": missing_ok},
            lease_id=self._lease_id,
        )

    async def _write(
        self, method: str, below: str, content: bytes | AsyncIterator[bytes], params: Params
    ) -> int:
        response = await self._transport.call(
            method, self._path + below, content=content, params=params, lease_id=self._lease_id
        )
        return answers.parse(Written, response.content).size
