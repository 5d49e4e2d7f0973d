"""`NativeBackend`: sandboxes forked from templates into namespaces of their own.

How a box comes to be:

    spec --(image, preload, working_dir)--> template --fork, jail--> guest
         --hello, cgroup, first run--> box

    N1  A box's id range and its cgroup are taken from the create packet on, and free again only
        once its template has said that no process of it is left, or is itself gone.
    N2  An image of the store is held from before its template starts until the backend is closed.
    N3  A box that may have a network is connected to the gate of its policy (`egress`) before
        anybody has it, and ends with that gate: until and after that it has its loopback only.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import os
import socket
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from sandpool import config as settings
from sandpool.backends.base import BoxSpec, Limits, RunOptions
from sandpool.backends.box import GuestBox
from sandpool.backends.connection import GuestConnection
from sandpool.backends.native import cgroups, doctor, images, limits, seccomp
from sandpool.backends.native.egress import rules
from sandpool.backends.native.egress.gateway_handle import GatewayHandle
from sandpool.backends.native.habits import Habit, is_plain
from sandpool.backends.native.ids import RANGE, IdRanges
from sandpool.backends.native.template_handle import Birth, TemplateHandle
from sandpool.errors import (
    BackendUnavailable,
    CreateFailed,
    DestroyFailed,
    InvalidSpec,
    SandpoolError,
    Unsupported,
)
from sandpool.guest import frames
from sandpool.images import ImageStore
from sandpool.models import ImagePull, Network

LIBRARY = Path(__file__).resolve().parents[2]
"""The directory of the package `sandpool`, whose guest and template are put into images."""

_HELLO_TIMEOUT = 20.0
_MOST_KINDS = 256
"""Kinds of sandboxes whose descriptions are kept."""
_END_TIMEOUT = 10.0
_WARM_UP = RunOptions(timeout=10.0, max_output=4096)

_Key = tuple[str, tuple[str, ...], str, bool]
"""What a template is for: image, preload, working directory, and whether there is a network."""


class _Keeper:
    """What the backend holds for one box; see `box.Keeper`."""

    def __init__(
        self,
        backend: NativeBackend,
        box_id: str,
        limits: Limits,
        facts: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._backend = backend
        self.box_id = box_id
        self.limits = limits
        """What the box is held to."""
        self._facts = facts
        self.template: TemplateHandle | None = None
        self.birth = Birth(self._exited)
        self.habit: Habit | None = None
        """To be told what the box was used for, if it is at all."""
        self._is_used = False
        self._was_plain = True
        self.slot: cgroups.Slot | None = None
        self.first_id: int | None = None

    @property
    def info(self) -> Mapping[str, Any]:
        return self._facts()

    def requested(self, op: str, fields: Mapping[str, object]) -> None:
        if op == "bind":
            self._is_used = True
        # Before that it is asked for what it was made ready for, which says nothing of its use.
        if self._is_used:
            self._was_plain = self._was_plain and is_plain(op, fields)

    def was_oom_killed(self) -> bool:
        return self.slot is not None and self._backend.cgroups.was_oom_killed(self.slot)

    def rlimits(self, limits: Limits) -> Mapping[str, int]:
        return self._backend.rlimits(limits)

    async def set_limits(self, limits: Limits) -> None:
        await self._backend.change_limits(self, limits)

    async def end(self) -> None:
        if self.template is None:
            self._exited(None)
            return
        self.template.attach()
        self.template.kill(self.birth)
        with anyio.move_on_after(_END_TIMEOUT):
            await self.birth.wait_exit()
            return
        raise DestroyFailed(
            f"sandbox {self.box_id} did not end within {_END_TIMEOUT:.0f} s of being killed"
        )

    def _exited(self, status: int | None) -> None:
        # Invariant N1: nothing of it runs any more, or its template is gone and takes it along.
        if self.habit is not None and self._is_used:
            self.habit.note(self._was_plain)
        if self.slot is not None:
            self._backend.cgroups.give_back(self.slot)
            self.slot = None
        if self.first_id is not None:
            self._backend.ids.give_back(self.first_id)
            self.first_id = None
        self._backend.unplug(self.box_id)


class NativeBackend:
    """Makes boxes on this machine, as root or as an ordinary user; implements `base.Backend`."""

    name = "native"

    def __init__(self, *, templates_per_spec: int = 1, image_store: Path | None = None) -> None:
        """Do nothing yet.

        Args:
            templates_per_spec: How many replicas share the forking of one busy spec.
            image_store: Where images are that have a name; by default what the environment says.
        """
        self._replicas = templates_per_spec
        self._image_store = image_store
        self._templates: dict[_Key, list[TemplateHandle]] = {}
        self._ended: list[TemplateHandle] = []
        """Templates that died; their processes have still to be reaped."""
        self._images: dict[_Key, images.Image] = {}  # Invariant N2
        self._habits: dict[_Key, Habit] = {}
        """What boxes of an image that is held are used for."""
        self._kinds: dict[tuple[_Key, Limits], str] = {}
        """What templates are told of sandboxes, of images that are held."""
        self._starting: dict[_Key, asyncio.Future[None]] = {}
        self._turn = 0
        self._is_privileged = os.geteuid() == 0
        self._filters: list[str] = []
        self._found = cgroups.Found((), "not looked for yet")
        self.cgroups = cgroups.Cgroups(self._found)
        self._mechanisms: Mapping[str, str] = {}
        """What holds each limit."""
        self.ids = IdRanges()
        self._gateway: GatewayHandle | None = None
        self._ended_gateways: list[GatewayHandle] = []
        """Gateways that were lost; their processes have still to be reaped."""
        self._gateway_start = anyio.Lock()
        self._is_open = False

    async def prepare(self, spec: BoxSpec) -> None:
        """Start the templates of `spec`, if they do not run yet."""
        limits.check(spec.limits)
        key = _key(spec)
        if spec.network is not None:
            await (await self._open_gateway()).open(spec.network)
        while not self._has_templates(key):
            starting = self._starting.get(key)
            if starting is not None and starting.get_loop() is asyncio.get_running_loop():
                await asyncio.wait([starting])
            else:
                await self._start_templates(key, spec)

    async def _open_gateway(self) -> GatewayHandle:
        async with self._gateway_start:
            if self._gateway is None or self._gateway.is_gone:
                self._open()
                self._gateway = await GatewayHandle.start(
                    privileged=self._is_privileged,
                    table=self.cgroups.name,
                    on_lost=self._lose_gateway,
                )
            return self._gateway

    def _lose_gateway(self, cause: str) -> None:
        # Invariant N3.  Their templates go too: as an ordinary user, those of another gateway are
        # out of its reach.
        assert self._gateway is not None
        self._ended_gateways.append(self._gateway)
        self._gateway = None
        for key, handles in self._templates.items():
            if key[-1]:
                for handle in handles:
                    handle.end(f"its gateway is gone: {cause}")

    def unplug(self, box_id: str) -> None:
        """Disconnect a box that has exited, if it was connected."""
        if self._gateway is not None:
            self._gateway.unplug(box_id)

    def _has_templates(self, key: _Key) -> bool:
        living: list[TemplateHandle] = []
        for handle in self._templates.get(key, ()):
            (self._ended if handle.is_gone else living).append(handle)
        self._ended = [handle for handle in self._ended if not handle.has_been_reaped()]
        self._templates[key] = living
        return len(living) >= self._replicas

    async def _start_templates(self, key: _Key, spec: BoxSpec) -> None:
        done = asyncio.get_running_loop().create_future()
        self._starting[key] = done
        try:
            self._open()
            image = self._image(key, spec)
            config = self._template_config(image, spec)
            while not self._has_templates(key):
                gateway = None if spec.network is None else await self._open_gateway()
                if gateway is not None:
                    config["user_namespace"] = gateway.user_namespace
                handle = await TemplateHandle.start(config, LIBRARY)
                self._templates[key].append(handle)
                if gateway is not None and gateway.is_gone:
                    handle.end("its gateway is gone")  # it was lost while this one started
            # Only now: the directories of a killed program are removed by its templates.
            self.cgroups.open()
        except BaseException:
            if not self._templates.get(key):
                self._let_go(key)
            raise
        finally:
            self._starting.pop(key, None)
            done.set_result(None)

    def _image(self, key: _Key, spec: BoxSpec) -> images.Image:
        image = self._images.get(key)
        # One that is held stays what it was, whatever its name means by now (invariant N2).
        if image is None or image.hold is None:
            store = ImageStore(self._image_store or settings.image_store())
            resolver = None if spec.network is None else str(rules.RESOLVER)
            image = images.resolve(spec.image, spec.working_dir, LIBRARY, store, resolver=resolver)
            self._images[key] = image
        return image

    def _let_go(self, key: _Key) -> None:
        self._kinds.clear()
        self._habits.pop(key, None)
        image = self._images.pop(key, None)
        if image is not None and image.hold is not None:
            image.hold.close()

    def _open(self) -> None:
        if self._is_open:
            return
        report = doctor.examine()
        if not report.ok:
            raise BackendUnavailable(
                "this host cannot run native sandboxes: "
                + "; ".join(report.problems)
                + ". "
                + " ".join(report.remedies)
            )
        self._found = cgroups.find()
        self.cgroups = cgroups.Cgroups(self._found)
        self._mechanisms = limits.mechanisms(self.cgroups.describe())
        self._filters = [base64.b64encode(part).decode() for part in seccomp.filters()]
        self._is_open = True

    def _template_config(self, image: images.Image, spec: BoxSpec) -> dict[str, Any]:
        return {
            "guest": str(LIBRARY / "guest"),
            "privileged": self._is_privileged,
            "user_namespace": None,
            "layout": image.layout.as_json(),
            "python": image.python,
            "preload": list(spec.preload),
            # For inside only: on the host it could have our own interpreter load a library.
            "env": _environment(image),
            "seccomp": self._filters,
            "calls": seccomp.numbers(),
            "cgroups": self.cgroups.roots,
            # A template must stay single-threaded: the numeric libraries start threads otherwise.
            "template_env": {
                # What a library is asked for first is looked up then; in a template, not in forks.
                "LD_BIND_NOW": "1",
                "PATH": image.path,
                "HOME": "/home/sandbox",
                "LANG": "C.UTF-8",
                "OPENBLAS_NUM_THREADS": "1",
                "OMP_NUM_THREADS": "1",
                "MKL_NUM_THREADS": "1",
                "NUMEXPR_NUM_THREADS": "1",
                "MPLBACKEND": "Agg",
                "MPLCONFIGDIR": "/tmp/matplotlib",  # noqa: S108 (inside the sandbox)
            },
        }

    def pulls(self) -> Mapping[str, ImagePull]:
        """Return nothing: an image is in the store, or there is none."""
        return {}

    async def create(
        self, spec: BoxSpec, *, box_id: str, on_made: Callable[[], None] | None = None
    ) -> GuestBox:
        """Fork one sandbox, put it under its limits, and run something small in it.

        A fork runs from the first, so `on_made` is never called.
        """
        await self.prepare(spec)
        key = _key(spec)
        template = self._next_template(key)
        image = self._images[key]
        # Few are ever asked for what people are told.
        facts = partial(self._facts, spec, image, template)
        keeper = _Keeper(self, box_id, spec.limits, facts)
        box = GuestBox(box_id, spec)
        ours, theirs = socket.socketpair()
        keeper.habit = self._habits.setdefault(key, Habit())
        connection = GuestConnection(ours, box.note_death, on_request=keeper.requested)
        box.begin(connection, keeper)
        try:
            with theirs:
                keeper.slot = self.cgroups.take(spec.limits) if self._found.hierarchies else None
                keeper.first_id = self.ids.take() if self._is_privileged else None
                kind = self._kind(spec, image)
                template.create(kind, keeper.first_id, theirs, keeper.birth)
                keeper.template = template
            await self._welcome(box, connection, keeper, image)
        except BaseException as error:
            # Cancel: half-made counts as made; it is ended here, whatever else goes wrong.
            with anyio.CancelScope(shield=True):
                await box.destroy()
            if isinstance(error, SandpoolError) and not isinstance(error, CreateFailed):
                raise CreateFailed(f"a sandbox could not be made: {error}") from error
            raise
        return box

    def _next_template(self, key: _Key) -> TemplateHandle:
        handles = self._templates.get(key)
        if not handles:
            raise CreateFailed("the backend has been closed")
        self._turn += 1
        return handles[self._turn % len(handles)]

    async def _welcome(
        self, box: GuestBox, connection: GuestConnection, keeper: _Keeper, image: images.Image
    ) -> None:
        with anyio.move_on_after(_HELLO_TIMEOUT) as scope:
            if keeper.slot is not None:
                # Before the first frame: what the guest forks from then on inherits the limits.
                await self.cgroups.attach(keeper.slot, await keeper.birth.wait_pid())
            if box.spec.network is not None:
                await self._plug(box.spec.network, keeper)
            hello = connection.open("hello", _introduction(box.spec), is_held=True)
            if image.working_mount is None:
                await box.make_dir(box.spec.working_dir)
            if image.python is not None:
                await connection.open("warm", _readiness(keeper.habit)).result()
            await hello.result()
        if scope.cancelled_caught:
            raise CreateFailed(f"the guest was not ready within {_HELLO_TIMEOUT:.0f} s")

    async def _plug(self, network: Network, keeper: _Keeper) -> None:
        await keeper.birth.wait_pid()
        namespace = keeper.birth.take_network()
        try:
            gateway = await self._open_gateway()
            await gateway.plug(network, keeper.box_id, namespace)
        finally:
            os.close(namespace)
            if keeper.birth.has_exited:
                self.unplug(keeper.box_id)  # nobody else will: it ended before it was connected

    def _kind(self, spec: BoxSpec, image: images.Image) -> str:
        """Return what a sandbox has in common with others, as a template is told it."""
        key = _key(spec), spec.limits
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) >= _MOST_KINDS:
                self._kinds.clear()
            kind = self._kinds[key] = json.dumps(self._describe(spec, image))
        return kind

    def _describe(self, spec: BoxSpec, image: images.Image) -> dict[str, Any]:
        tenant = 1000 if self._is_privileged else None
        return {
            "uid_count": RANGE,
            "disk_bytes": spec.limits.disk_mb * 1024 * 1024,
            "inodes": spec.limits.inodes,
            "working_mount": image.working_mount,
            "covered": image.covered,
            "is_plugged": spec.network is not None,
            "settings": {
                "uid": tenant,
                "gid": tenant,
                "home": "/home/sandbox",
                "working_dir": spec.working_dir,
                "env": _environment(image),
                "rlimits": self.rlimits(spec.limits),
                "run_dir": "/run/sandpool",
                "has_python": image.python is not None,
                "executable": image.python,
            },
        }

    def rlimits(self, wanted: Limits) -> dict[str, int]:
        """Return the rlimits of everything that runs in a box with these limits."""
        return limits.rlimits(wanted, self._found.controllers)

    async def change_limits(self, keeper: _Keeper, wanted: Limits) -> None:
        """Hold one of our boxes to other limits; see `base.Box.set_limits`."""
        old = keeper.limits
        limits.check_change(old, wanted, self._found.controllers)
        try:
            if keeper.slot is not None and limits.differ(old, wanted, *limits.GROUPED):
                await self.cgroups.change(keeper.slot, wanted)
            if keeper.template is not None and limits.differ(old, wanted, *limits.MOUNTED):
                await self._resize(keeper, keeper.template, wanted)
        except OSError as error:
            raise Unsupported(f"limits: this host's kernel refuses them: {error}") from error
        keeper.limits = wanted

    async def _resize(self, keeper: _Keeper, template: TemplateHandle, wanted: Limits) -> None:
        try:
            await template.resize(keeper.birth, wanted.disk_mb * 1024 * 1024, wanted.inodes)
        except OSError as error:
            if keeper.slot is not None:
                await self.cgroups.change(keeper.slot, keeper.limits)
            if error.errno == errno.EINVAL:
                raise InvalidSpec(limits.too_small(wanted)) from error
            raise

    def _facts(
        self, spec: BoxSpec, image: images.Image, template: TemplateHandle
    ) -> dict[str, Any]:
        return {
            "backend": self.name,
            "image": image.name,
            "python": template.python,
            "isolation": "namespaces, seccomp, no capabilities, "
            + ("host ids of its own" if self._is_privileged else "rootless, one id"),
            "network": self._describe_network(spec),
            "limits": dict(self._mechanisms),
        }

    def _describe_network(self, spec: BoxSpec) -> str:
        if spec.network is None or self._gateway is None:
            return "loopback only"
        count = len(spec.network.allow)
        listed = f"{count} destination{'s' if count > 1 else ''}"
        return f"{listed} by nftables and {self._gateway.uplink}"

    async def aclose(self) -> None:
        """End every template and the gateway, and with them every box."""
        handles = [handle for replicas in self._templates.values() for handle in replicas]
        handles += self._ended
        self._templates.clear()
        self._ended.clear()
        gateways = [*self._ended_gateways, *([self._gateway] if self._gateway else [])]
        self._ended_gateways.clear()
        self._gateway = None
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as group:
                for end in [*(one.aclose for one in handles), *(one.aclose for one in gateways)]:
                    group.start_soon(end)
        for key in list(self._images):
            self._let_go(key)
        self.cgroups.close()
        self.ids.close()
        self._is_open = False


def _introduction(spec: BoxSpec) -> dict[str, object]:
    """Return what a guest is told first.

    The environment may hold secrets, so it goes to the guest alone: in the template it would be
    memory that the sandboxes of others inherit.
    """
    env = {"env": dict(spec.env)} if spec.env else {}
    return {"version": frames.VERSION, **env}


def _readiness(habit: Habit | None) -> dict[str, object]:
    """Return what `warm` asks for: more than what is plain, where that is of use."""
    return {} if habit is None or habit.is_plain else {"fully": True}


def _key(spec: BoxSpec) -> _Key:
    return spec.image, spec.preload, spec.working_dir, spec.network is not None


def _environment(image: images.Image) -> dict[str, str]:
    """Return what every sandbox's environment begins with."""
    return {
        "PATH": image.path,
        "HOME": "/home/sandbox",
        "USER": "sandbox",
        "LOGNAME": "sandbox",
        "LANG": "C.UTF-8",
        **image.env,
    }
