"""`DockerBackend`: a container for each sandbox, with our guest as its first process.

How a box comes to be:

    image --compile, once--> the guest as code for its Python
    spec --create, attach, start--> container --order over its input--> guest --hello, warm--> box

    D1  A container of ours is in `_boxes`, or a `create` or `prepare` that is in progress removes
        it unless it succeeds, or the engine never told us of it; `aclose` finds it by its labels.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import anyio

from sandpool.backends.base import BoxSpec, ContainerSpec, RunOptions
from sandpool.backends.box import GuestBox
from sandpool.backends.connection import GuestConnection
from sandpool.backends.docker import bundle, container, owners
from sandpool.backends.docker.compiling import Compiler
from sandpool.backends.docker.demultiplexer import Demultiplexer
from sandpool.backends.docker.engine import Answer, Engine
from sandpool.backends.docker.keeper import Keeper
from sandpool.backends.docker.pulling import Name, Pulls, image_not_found
from sandpool.backends.docker.reaper import remove_all_of, remove_orphans
from sandpool.errors import (
    BackendUnavailable,
    CreateFailed,
    DestroyFailed,
    ImageNotFound,
    SandboxDied,
    SandpoolError,
)
from sandpool.guest import frames
from sandpool.models import ImagePull

_log = logging.getLogger(__name__)

_HELLO_TIMEOUT = 30.0
_START_TIMEOUT = 60.0
_ATTACH_TIMEOUT = 10.0
_LOOK_TIMEOUT = 10.0
_AT_ONCE = 16
"""Removals that go on side by side; with many more an engine answers none of them in time."""

_LENT = "this machine's Python, lent: the image has none, and runs commands only"

_CONFLICT = 409
_NOT_FOUND = 404

_Key = tuple[Name, tuple[str, ...]]


class DockerBackend:
    """Makes boxes with a Docker Engine; implements `base.Backend`."""

    name = "docker"

    def __init__(
        self,
        *,
        address: str | None = None,
        runtime: str | None = None,
        images: Mapping[str, str] | None = None,
    ) -> None:
        """Do nothing yet.

        Args:
            address: Where the engine listens, as `unix:///path`; by default DOCKER_HOST says it.
            runtime: The OCI runtime of the containers, such as `runsc`; by default the engine's.
            images: References by the names that specs use, as `{"host": "python:3.11-slim"}`.
        """
        self._engine = Engine(address)
        self._runtime = runtime
        self._names = dict(images or {})
        self._owner: owners.Owner | None = None
        self._facts: Mapping[str, Any] = {}
        self._boxes: dict[str, GuestBox] = {}
        """By the ids of their containers.  Invariant D1."""
        self._pulls = Pulls(self._engine)
        self._images: dict[Name, container.Image] = {}
        self._prepared: dict[tuple[str, tuple[str, ...]], bundle.Prepared] = {}
        """By the ids of images, and what is preloaded."""
        self._preparing: dict[_Key, asyncio.Future[None]] = {}

    async def prepare(self, spec: BoxSpec) -> None:
        """Find or pull the image, and have its Python compile the guest, unless that is done."""
        container.check(spec)
        key = _name(spec), spec.preload
        while not self._is_prepared(spec):
            going_on = self._preparing.get(key)
            if going_on is not None and going_on.get_loop() is asyncio.get_running_loop():
                await asyncio.wait([going_on])
            else:
                await self._prepare(key, spec)

    def _is_prepared(self, spec: BoxSpec) -> bool:
        image = self._images.get(_name(spec))
        return image is not None and (image.id, spec.preload) in self._prepared

    async def _prepare(self, key: _Key, spec: BoxSpec) -> None:
        done = asyncio.get_running_loop().create_future()
        self._preparing[key] = done
        try:
            owner = await self._open()
            await self._retry_removals()
            image = await self._find_image(spec)
            if (image.id, spec.preload) not in self._prepared:
                compiler = Compiler(self._engine, owner, self._runtime)
                found = await compiler.compile(image, spec.preload)
                self._prepared[image.id, spec.preload] = found
            self._images[_name(spec)] = image
        finally:
            self._preparing.pop(key, None)
            done.set_result(None)

    async def _retry_removals(self) -> None:
        """Remove what should be gone and is not, because there was no engine at the time."""
        for box in list(self._boxes.values()):
            if box.is_destroyed:
                await _destroy(box, anyio.CapacityLimiter(1))

    async def _open(self) -> owners.Owner:
        """Meet the engine, and clear away what dead managers left there."""
        if self._owner is None:
            await self._engine.open()
            answer = await self._engine.request("GET", "/info", timeout=_LOOK_TIMEOUT)
            facts = answer.fields()
            self._check_runtime(facts)
            owner = owners.this_process()
            await remove_orphans(self._engine, owner)
            self._facts, self._owner = facts, owner
        return self._owner

    def _check_runtime(self, facts: Mapping[str, Any]) -> None:
        known: Mapping[str, Any] = facts.get("Runtimes") or {}
        if self._runtime is not None and self._runtime not in known:
            raise BackendUnavailable(
                f"the Docker Engine has no runtime {self._runtime!r} (it has "
                f"{', '.join(sorted(known))}); add it to `runtimes` in /etc/docker/daemon.json"
            )

    async def _find_image(self, spec: BoxSpec) -> container.Image:
        name, platform = _name(spec)
        reference = self._names.get(name, name)
        if reference == "host" or reference.startswith("/"):
            raise ImageNotFound(
                f"image {name!r} is a file system of this machine, which only the native backend "
                'uses; name an image of the Docker Engine, such as "python:3.11-slim"'
            )
        answer = await self._look_at_image(reference)
        if answer.status == _NOT_FOUND:
            interval = spec.container.pull_interval if spec.container is not None else None
            await self._pulls.pull((name, platform), reference, interval)
            answer = await self._look_at_image(reference)
        if answer.status == _NOT_FOUND:
            raise image_not_found(reference, self._engine.address, answer.message)
        if not answer.is_ok:
            raise BackendUnavailable(f"the Docker Engine cannot show {reference}: {answer.message}")
        return container.read_image(reference, platform, answer.fields())

    async def _look_at_image(self, reference: str) -> Answer:
        return await self._engine.request("GET", f"/images/{reference}/json", timeout=_LOOK_TIMEOUT)

    def pulls(self) -> Mapping[str, ImagePull]:
        """Return how far the pulls are that the engine makes for us."""
        return self._pulls.state()

    async def create(
        self, spec: BoxSpec, *, box_id: str, on_made: Callable[[], None] | None = None
    ) -> GuestBox:
        """Make and start one container, and go once through a run of code in it."""
        await self.prepare(spec)
        image = self._images[_name(spec)]
        prepared = self._prepared[image.id, spec.preload]
        keeper = Keeper(
            self._engine,
            spec.limits,
            self._describe(image, spec, prepared, box_id),
            self._forget,
        )
        box = GuestBox(box_id, spec)
        try:
            await self._make(keeper, image, spec, box_id, prepared)
            if on_made is not None:
                on_made()
            demultiplexer = Demultiplexer()
            sock, early = await self._engine.attach(keeper.container, timeout=_ATTACH_TIMEOUT)
            demultiplexer.feed(early)
            connection = GuestConnection(
                sock, box.note_death, unwrap=demultiplexer.feed, on_end=keeper.hold_inquest
            )
            keeper.begin(connection, demultiplexer)
            check = keeper.check_empty if container.can_reset(spec) else None
            box.begin(connection, keeper, check_empty=check)
            await self._start(keeper)
            is_lent = prepared.interpreter.is_lent
            executable = None if is_lent else prepared.executable
            settings = container.settings(image, spec, executable)
            order = bundle.serve_order(prepared, spec.preload, settings)
            await _welcome(connection, order, has_python=not is_lent)
            await keeper.find_memory_group()
            await _run_command(box)
            keeper.is_kept = _is_kept(spec)
            self._boxes[keeper.container] = box
        except BaseException as error:
            # Cancel: half-made counts as made; it is ended here, whatever else goes wrong.
            self._images.pop(_name(spec), None)
            with anyio.CancelScope(shield=True):
                await _abandon(box, keeper)
            if isinstance(error, SandboxDied):
                raise CreateFailed(f"a sandbox could not be made: {error}") from error
            raise
        return box

    async def _make(
        self,
        keeper: Keeper,
        image: container.Image,
        spec: BoxSpec,
        box_id: str,
        prepared: bundle.Prepared,
    ) -> None:
        assert self._owner is not None
        body = container.request(
            image,
            spec,
            interpreter=prepared.interpreter,
            program=bundle.STUB,
            labels=self._owner.labels(box_id, is_kept=_is_kept(spec)),
            runtime=self._runtime,
        )
        name = f"sandbox-{box_id}"
        answer = await self._engine.make_container(name, body, image.platform)
        if answer.is_ok:
            keeper.container = answer.fields()["Id"]
            return
        if answer.status == _CONFLICT:
            raise CreateFailed(
                f"the name {name} is taken by another container; choose another sandbox id, "
                f"or remove it: docker rm -f {name}"
            )
        if answer.status == _NOT_FOUND and "image" in answer.message.lower():
            raise image_not_found(image.name, self._engine.address, answer.message)
        raise CreateFailed(f"the Docker Engine made no container: {answer.message}")

    async def _start(self, keeper: Keeper) -> None:
        answer = await self._engine.request(
            "POST", f"/containers/{keeper.container}/start", timeout=_START_TIMEOUT
        )
        if not answer.is_ok:
            raise CreateFailed(f"the Docker Engine did not start the container: {answer.message}")

    def _describe(
        self, image: container.Image, spec: BoxSpec, prepared: bundle.Prepared, box_id: str
    ) -> dict[str, Any]:
        runtime = self._runtime or self._facts.get("DefaultRuntime", "runc")
        asked = spec.container or ContainerSpec()
        shut = "read-only root, no capabilities, one id"
        return {
            "backend": self.name,
            "image": image.name,
            "image_id": image.id,
            "container": f"sandbox-{box_id}",
            "python": None if prepared.interpreter.is_lent else prepared.python,
            "guest": _LENT if prepared.interpreter.is_lent else "the image's Python",
            "isolation": f"container ({runtime}), {'privileged' if asked.privileged else shut}",
            "network": asked.network or "loopback only",
            "limits": container.mechanisms(self._facts),
        }

    def _forget(self, made: str) -> None:
        self._boxes.pop(made, None)

    async def aclose(self) -> None:
        """Remove every container of ours."""
        boxes = list(self._boxes.values())
        at_once = anyio.CapacityLimiter(_AT_ONCE)
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as group:
                for box in boxes:
                    group.start_soon(_destroy, box, at_once)
            owner, self._owner = self._owner, None
            if owner is not None:
                await remove_all_of(self._engine, owner)
        self._images.clear()
        self._prepared.clear()


def _name(spec: BoxSpec) -> Name:
    return spec.image, spec.container.platform if spec.container is not None else None


def _is_kept(spec: BoxSpec) -> bool:
    return spec.container is not None and spec.container.is_kept


async def _run_command(box: GuestBox) -> None:
    """Start what the container's command is, and leave it in the background."""
    command = box.spec.container.command if box.spec.container is not None else ()
    if command:
        argv = ("/bin/sh", "-c", '"$@" </dev/null >/dev/null 2>&1 &', "sh", *command)
        result = await box.exec(RunOptions(argv=argv, timeout=_HELLO_TIMEOUT))
        if result.exit_code:
            raise CreateFailed(f"command: {result.stderr.strip()}")


async def _welcome(connection: GuestConnection, order: bytes, *, has_python: bool) -> None:
    with anyio.move_on_after(_HELLO_TIMEOUT) as scope:
        connection.attach()
        connection.send(order)
        hello = connection.open("hello", {"version": frames.VERSION}, is_held=True)
        if has_python:
            await connection.open("warm", {}).result()
        await hello.result()
    if scope.cancelled_caught:
        raise CreateFailed(f"the guest was not ready within {_HELLO_TIMEOUT:.0f} s")


async def _abandon(box: GuestBox, keeper: Keeper) -> None:
    """End what has not become a sandbox; the cause is on its way to the caller already."""
    try:
        if keeper.has_begun:
            await box.destroy()
        else:
            await keeper.end()
    except SandpoolError:
        _log.warning("the container of a sandbox that was not made is left behind", exc_info=True)


async def _destroy(box: GuestBox, at_once: anyio.CapacityLimiter) -> None:
    try:
        async with at_once:
            await box.destroy()
    except DestroyFailed:
        _log.warning("a container could not be removed", exc_info=True)
