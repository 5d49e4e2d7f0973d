"""Images that the engine pulls for us: how far it is, who waits for it, and who gives it up."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.from_thread import start_blocking_portal

from sandpool import HttpSandboxManager, LocalSandboxManager, SandboxType
from sandpool.backends.base import BoxSpec
from sandpool.backends.docker import DockerBackend
from sandpool.errors import ImageNotFound
from sandpool.models import ImagePull
from sandpool.server import ServerSettings, serving
from sandpool.service import SandboxService
from tests.terminals import Terminal

from .conftest import SPEC, containers, docker

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.slow]

MIB = 1 << 20
LAYER = 4 * MIB
HELD = 2 * MIB
"""Bytes of an answer after which the relay waits."""


class Relay:
    """Stands between an engine and a registry; while it is shut, it holds back large answers."""

    def __init__(self, registry: str) -> None:
        host, _, port = registry.partition(":")
        self._registry = host, int(port)
        self.address = ""
        self.asked: list[str] = []
        """The first line of each request."""
        self.allowed = HELD
        """Bytes of an answer that are passed on by now."""
        self._news = asyncio.Event()
        self.calls = 0
        """Calls in progress."""

    def allow(self, size: int) -> None:
        """Pass on so many bytes of each answer."""
        self.allowed = size
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.calls += 1
        up_reader, up_writer = await asyncio.open_connection(*self._registry)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._ask, reader, up_writer, group.cancel_scope)
                group.start_soon(self._answer, up_reader, writer, group.cancel_scope)
        finally:
            self.calls -= 1
            writer.close()
            up_writer.close()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, end: anyio.CancelScope
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                self.asked += re.findall(r"^(?:GET|HEAD) \S+", data.decode("latin-1"))
                writer.write(data)
        end.cancel()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, end: anyio.CancelScope
    ) -> None:
        size = 0
        with suppress(OSError):
            while data := await reader.read(65536):
                size += len(data)
                while size > self.allowed:
                    await self._news.wait()
                writer.write(data)
                await writer.drain()
        end.cancel()


@pytest.fixture
def pushed(registry: str, tmp_path: Path) -> str:
    """An image with one layer that only the registry has, by its name there."""
    (tmp_path / "layer").write_bytes(os.urandom(LAYER))
    name = f"large-{os.getpid()}:1"
    container = docker("create", SPEC.image)
    docker("cp", str(tmp_path / "layer"), f"{container}:/layer")
    docker("commit", container, f"{registry}/{name}")
    docker("rm", container)
    docker("push", "--quiet", f"{registry}/{name}")
    docker("rmi", f"{registry}/{name}")
    return name


@pytest.fixture
async def relay(registry: str) -> AsyncIterator[Relay]:
    relay = Relay(registry)
    async with await asyncio.start_server(relay.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        relay.address = f"127.0.0.1:{port}"
        yield relay


@pytest.fixture
async def image(relay: Relay, pushed: str) -> AsyncIterator[str]:
    """The same image as the engine can pull it through the relay."""
    reference = f"{relay.address}/{pushed}"
    yield reference
    with suppress(Exception):
        docker("rmi", "--force", reference)


async def pull_of(service: SandboxService, image: str) -> ImagePull | None:
    found = [each.pull for each in await service.list_images() if each.name == image]
    return found[0] if found else None


async def until(found: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not found():
            await anyio.lowlevel.checkpoint()


async def until_held(service: SandboxService, image: str) -> ImagePull:
    """Wait until the pull has got some bytes, and is to get no more."""
    with anyio.fail_after(60):
        while True:
            pull = await pull_of(service, image)
            if pull is not None and pull.bytes_done:
                return pull


async def until_engine_has_left(relay: Relay) -> None:
    """Wait until the engine takes no more of a layer that it has been given a part of.

    Nobody told it but by leaving.  It looks up when there is something for it to read.
    """
    relay.allow(HELD + MIB)
    await until(lambda: relay.calls == 0)


def has(image: str) -> bool:
    return bool(docker("images", "--quiet", image))


async def test_a_pull_is_told_in_bytes_and_ends_at_the_engine_when_it_is_given_up(
    relay: Relay, image: str
) -> None:
    async with LocalSandboxManager() as manager:
        async with anyio.create_task_group() as group:
            config: dict[str, Any] = {"image": image}
            group.start_soon(manager.create_sandbox, SandboxType.DOCKER, config)
            pull = await until_held(manager, image)
            # The layers of what it was made from are there already.
            assert 0 < pull.layers_done == pull.layers - 1
            assert 0 < pull.bytes_done <= HELD
            assert LAYER <= pull.bytes_total < LAYER + MIB
            # It may keep a connection that it has asked for something smaller before.
            assert relay.calls >= 1
            group.cancel_scope.cancel()
        await until_engine_has_left(relay)
        assert not has(image)
        assert await pull_of(manager, image) is None
        relay.allow(100 * MIB)
        sandbox = await manager.create_sandbox(SandboxType.DOCKER, config)
        assert await pull_of(manager, image) is None
        await manager.delete_sandbox(sandbox)


async def test_pools_that_need_one_image_at_the_same_time_pull_it_once(
    relay: Relay, image: str
) -> None:
    backend = DockerBackend()
    try:
        async with anyio.create_task_group() as group:
            # What is preloaded is no business of the image's.
            for preload in ((), ("json",), ("decimal",)):
                group.start_soon(backend.prepare, BoxSpec(image=image, preload=preload))
            await until(lambda: any(pull.bytes_done for pull in backend.pulls().values()))
            asked = list(relay.asked)
            relay.allow(100 * MIB)
        assert has(image)
        assert relay.asked == asked
        assert len([line for line in asked if line.endswith("/manifests/1")]) == 1
    finally:
        await backend.aclose()


async def test_a_tag_that_the_registry_lacks_is_an_error_with_the_engine_s_cause(
    image: str,
) -> None:
    backend = DockerBackend()
    missing = image.removesuffix(":1") + ":no-such-tag"
    with pytest.raises(ImageNotFound, match=rf"(?s)manifest .*docker pull {re.escape(missing)}"):
        await backend.prepare(BoxSpec(image=missing))
    assert backend.pulls() == {}
    await backend.aclose()


async def test_a_terminal_shows_the_pull_and_what_is_made_and_started(
    relay: Relay, image: str
) -> None:
    before = containers()
    with start_blocking_portal() as portal:
        serve = serving(ServerSettings(port=0))
        with portal.wrap_async_context_manager(serve) as url:
            words = ("pool", "create", "full", "--backend", "docker", "--image", image)
            terminal = Terminal(url, *words, "--warm", "2", "--wait")
            try:
                await anyio.to_thread.run_sync(terminal.until, "pool full: pull ")
                await anyio.to_thread.run_sync(terminal.until, " of 4.0 MiB, ")
                relay.allow(100 * MIB)
                await anyio.to_thread.run_sync(terminal.until, "pool full: create ")
                await anyio.to_thread.run_sync(terminal.until, " of 2 ready")
                await anyio.to_thread.run_sync(terminal.until, "full\r\n")
                assert await anyio.to_thread.run_sync(terminal.program.wait, 60) == 0
            finally:
                terminal.close()
    assert containers() <= before


async def test_a_command_that_is_interrupted_ends_the_pull_at_the_engine(
    relay: Relay, image: str
) -> None:
    with start_blocking_portal() as portal:
        serve = serving(ServerSettings(port=0))
        with portal.wrap_async_context_manager(serve) as url:
            words = ("pool", "create", "full", "--backend", "docker", "--image", image)
            terminal = Terminal(url, *words)
            try:
                await anyio.to_thread.run_sync(terminal.until, " of 4.0 MiB, ")
                assert relay.calls == 1
                terminal.program.send_signal(signal.SIGINT)
                assert await anyio.to_thread.run_sync(terminal.program.wait, 60) == 130
            finally:
                terminal.close()
            async with HttpSandboxManager(base_url=url) as manager:
                assert await pull_of(manager, image) is None
                assert await manager.list_pools() == []
            await until_engine_has_left(relay)
    assert not has(image)
