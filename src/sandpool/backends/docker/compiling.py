"""Has an image's own Python compile the guest, in a container that runs nothing else."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Sequence

import anyio
import anyio.to_thread

from sandpool.backends.base import BoxSpec, Limits
from sandpool.backends.docker import bundle, container
from sandpool.backends.docker.demultiplexer import Demultiplexer
from sandpool.backends.docker.engine import Answer, Engine
from sandpool.backends.docker.interpreter import OWN, Interpreter, lend
from sandpool.backends.docker.keeper import remove_container
from sandpool.backends.docker.owners import Owner
from sandpool.errors import BackendUnavailable, CreateFailed, InvalidSpec
from sandpool.guest.frames import FrameError

_TIMEOUT = 120.0
"""Seconds for all of it: large libraries take long to import for the first time."""
_MEMORY_MB = 2048
_READ = 256 * 1024
_MAX_OUTPUT = 16 * 1024 * 1024


class Compiler:
    """Compiles for the images of one engine."""

    def __init__(self, engine: Engine, owner: Owner, runtime: str | None) -> None:
        """Do nothing yet; containers are labelled as the owner's."""
        self._engine = engine
        self._owner = owner
        self._runtime = runtime

    async def compile(self, image: container.Image, preload: Sequence[str]) -> bundle.Prepared:
        """Return what the image's Python made of the guest, or ours where it has none.

        Raises `InvalidSpec` for what cannot be preloaded.
        """
        try:
            return await self._compile(image, preload, OWN)
        except _NoPythonError as error:
            reason = f"image {image.name!r} has no python3 on its PATH"
            if preload:
                raise InvalidSpec(f"preload: {reason}, so there is nothing to import") from error
            lent = await anyio.to_thread.run_sync(lend)
            try:
                return await self._compile(image, (), lent)
            except (_NoPythonError, CreateFailed, BackendUnavailable) as failed:
                raise BackendUnavailable(
                    f"{reason}, and this machine's does not run in its container ({failed}); "
                    "choose an image with Python 3.8 or later"
                ) from failed

    async def _compile(
        self, image: container.Image, preload: Sequence[str], interpreter: Interpreter
    ) -> bundle.Prepared:
        name = f"prepare-{secrets.token_hex(6)}"
        body = container.request(
            image,
            BoxSpec(image=image.name, limits=Limits(memory_mb=_MEMORY_MB)),
            interpreter=interpreter,
            program=bundle.STUB,
            labels=self._owner.labels(name),
            runtime=self._runtime,
        )
        answer = await self._engine.make_container(f"sandpool-{name}", body, image.platform)
        if not answer.is_ok:
            raise CreateFailed(f"the Docker Engine made no container: {answer.message}")
        made = answer.fields()["Id"]
        try:
            output = await self._run(made, image, bundle.compile_order(preload))
        finally:
            with anyio.CancelScope(shield=True):
                await remove_container(self._engine, made)
        prepared = bundle.read_prepared(output, interpreter)
        _check(prepared, preload)
        return prepared

    async def _run(self, made: str, image: container.Image, order: bytes) -> bytes:
        sock, early = await self._engine.attach(made, timeout=_TIMEOUT)
        with sock:
            answer = await self._engine.request(
                "POST", f"/containers/{made}/start", timeout=_TIMEOUT
            )
            if not answer.is_ok:
                raise _not_started(answer)
            with anyio.move_on_after(_TIMEOUT):
                return await _converse(sock, early, order)
        raise CreateFailed(f"image {image.name!r} did not answer within {_TIMEOUT:.0f} s")


async def _converse(sock: socket.socket, early: bytes, order: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    demultiplexer = Demultiplexer()
    try:
        output = demultiplexer.feed(early)
        await loop.sock_sendall(sock, order)
        while data := await loop.sock_recv(sock, _READ):
            output += demultiplexer.feed(data)
            if len(output) > _MAX_OUTPUT:
                raise BackendUnavailable("the image's Python answered with far too much")
    except (OSError, FrameError) as error:
        raise BackendUnavailable(f"the container's stream broke: {error}") from error
    if not output and demultiplexer.errors:
        raise BackendUnavailable(f"the image's Python failed: {demultiplexer.errors[-500:]}")
    return output


class _NoPythonError(Exception):
    """There is no such program in the image."""


def _not_started(answer: Answer) -> _NoPythonError | CreateFailed:
    if "executable file not found" in answer.message or "no such file" in answer.message:
        return _NoPythonError(answer.message)
    return CreateFailed(f"the Docker Engine did not start a container: {answer.message}")


def _check(prepared: bundle.Prepared, preload: Sequence[str]) -> None:
    what = ", ".join(preload)
    if prepared.failure is not None:
        raise InvalidSpec(f"preload: {what} cannot be imported: {prepared.failure}")
    if prepared.threads > 1:
        raise InvalidSpec(
            f"preload: importing {what} left {prepared.threads} threads running; "
            "an interpreter that is forked must have one"
        )
