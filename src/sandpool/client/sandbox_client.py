"""`SandboxClient`: pools and sandboxes of this process or of a server, for callers that block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from sandpool import config as settings
from sandpool.backends.base import Backend
from sandpool.client import requests
from sandpool.client.backing import Backing, Held, Manager, backing
from sandpool.client.http_manager import HttpSandboxManager
from sandpool.client.records import PoolRecord, SandboxRecord, pool_record
from sandpool.client.sandbox import BlockingSandbox
from sandpool.errors import InvalidSpec, Unsupported
from sandpool.ids import new_pool_id
from sandpool.manager.local import LocalSandboxManager
from sandpool.models import SandboxManagerConfig
from sandpool.sync import Portal


class SandboxClient:
    """The blocking face of a manager: a `LocalSandboxManager` that it has for itself, or a server.

    The manager runs on a thread of the client's own, which begins with the first call and ends with
    `close`, with the `with` block, or with the program.  Any thread may call, one that runs an
    event loop too.  After `close`, and in a fork of the process, calls raise `ManagerNotStarted`.
    `Ctrl-C` cancels a call: what it was making is gone when `KeyboardInterrupt` comes out.
    """

    def __init__(
        self,
        config: SandboxManagerConfig | None = None,
        *,
        api_url: str | None = None,
        api_key: str | None = None,
        backends: Mapping[str, Callable[[], Backend]] | None = None,
        images: Mapping[str, str] | None = None,
    ) -> None:
        """Describe it; nothing runs before the first call.

        Args:
            config: The manager's settings.
            api_url: The server whose pools and sandboxes it uses; by default what `config`, or else
                `SANDPOOL_URL`, says.  Where none is named, or `backends` or `images` is given, it
                has a manager in this process.
            api_key: Who is calling the server; by default what `config`, or else
                `SANDPOOL_API_KEY`, says.
            backends: What makes sandboxes in this process, by the name of their type; by default
                only `native`.
            images: What image names stand for in this process; by default what `SANDPOOL_IMAGES`
                says.

        Raises:
            InvalidSpec: `api_url` is no server's URL, or is given with what is a server's to say.
            Unsupported: The packages that calls to a server need are not installed.
        """
        make_manager = _manager_maker(config, api_url, api_key, backends, images)
        self._portal: Portal[Backing] = Portal(lambda: backing(make_manager))

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Delete what it has created, and end the thread; no effect on a closed client.

        That is every sandbox, and in this process every pool; a server's pools stay.  Calls in
        progress on other threads raise `ManagerNotStarted`.
        """
        self._portal.close()

    # Pools.

    def create_pool(
        self,
        image: str,
        cpus: float = 1.0,
        memory_mb: int = 512,
        ephemeral_disk_mb: int = 1024,
        warm_containers: int | None = None,
        max_containers: int | None = None,
        timeout_secs: float = 0,
        secret_names: Sequence[str] = (),
        entrypoint: Sequence[str] | None = None,
        *,
        disk_mb: int | None = None,
        network: Mapping[str, Any] | None = None,
        gpus: Sequence[Mapping[str, Any]] | None = None,
        preload: Sequence[str] = (),
    ) -> PoolRecord:
        """Make a pool and start to fill it, without waiting for its sandboxes.

        Args:
            image: What sandboxes are made from: `host`, a root directory, or a name for one.
            cpus: Processors of each sandbox.
            memory_mb: Memory of each, in MiB.
            ephemeral_disk_mb: Disk of each, in MiB.
            warm_containers: How many are kept ready; None: none.
            max_containers: The most there are, ready and active together; None: no ceiling.
            timeout_secs: Seconds that a sandbox lives from its hand-over; 0: no such limit.
            secret_names: Not supported; anything but none is refused.
            entrypoint: Not supported; anything but None is refused.
            disk_mb: `ephemeral_disk_mb` by its other name.
            network: Not supported; anything but None is refused.
            gpus: Not supported; anything but None is refused.
            preload: Modules that each sandbox has imported already.

        Raises:
            InvalidSpec: A value is impossible, or more are to be warm than there may be.
            ImageNotFound: The image stands for nothing here.
            Unsupported: Something is asked for that sandboxes do not have.
            BackendUnavailable: This host cannot run sandboxes.
        """
        requests.refuse_unsupported(
            {
                "secret_names": secret_names,
                "entrypoint": entrypoint,
                "network": network,
                "gpus": gpus,
            }
        )
        spec = requests.new_pool(
            new_pool_id(),
            image=image,
            cpus=cpus,
            memory_mb=memory_mb,
            disk_mb=requests.disk(ephemeral_disk_mb, disk_mb),
            warm_containers=warm_containers,
            max_containers=max_containers,
            timeout_secs=timeout_secs,
            preload=preload,
        )

        async def create(here: Backing) -> PoolRecord:
            return pool_record(await here.manager.create_pool(spec))

        async def undo(here: Backing, pool: PoolRecord) -> None:
            await here.manager.delete_pool(pool.pool_id, force=True)

        return self._portal.call(create, undo=undo)

    def list_pools(self) -> list[PoolRecord]:
        """Describe all pools, in the order in which they were made."""

        async def records(here: Backing) -> list[PoolRecord]:
            return [pool_record(info) for info in await here.manager.list_pools()]

        return self._portal.call(records)

    def get_pool(self, pool_id: str) -> PoolRecord:
        """Describe one pool; `PoolNotFound`."""

        async def record(here: Backing) -> PoolRecord:
            return pool_record(await here.manager.get_pool(pool_id))

        return self._portal.call(record)

    def update_pool(
        self,
        pool_id: str,
        image: str | None = None,
        cpus: float | None = None,
        memory_mb: int | None = None,
        ephemeral_disk_mb: int | None = None,
        warm_containers: int | None = None,
        max_containers: int | None = None,
        timeout_secs: float | None = None,
        secret_names: Sequence[str] = (),
        entrypoint: Sequence[str] | None = None,
        *,
        disk_mb: int | None = None,
        network: Mapping[str, Any] | None = None,
        gpus: Sequence[Mapping[str, Any]] | None = None,
        preload: Sequence[str] | None = None,
    ) -> PoolRecord:
        """Change what is given of a pool's definition, and keep the rest.

        A change of what to make replaces the sandboxes that wait; a change of how many only resizes
        the pool.  Active sandboxes stay as they are.  Raises `PoolNotFound`, and what `create_pool`
        raises; then nothing has changed.
        """
        requests.refuse_unsupported(
            {
                "secret_names": secret_names,
                "entrypoint": entrypoint,
                "network": network,
                "gpus": gpus,
            }
        )
        disk = requests.disk(ephemeral_disk_mb, disk_mb)

        async def update(here: Backing) -> PoolRecord:
            old = await here.manager.get_pool(pool_id)
            spec = requests.changed_pool(
                old.spec,
                image=image,
                cpus=cpus,
                memory_mb=memory_mb,
                disk_mb=disk,
                warm_containers=warm_containers,
                max_containers=max_containers,
                timeout_secs=timeout_secs,
                preload=preload,
            )
            return pool_record(await here.manager.update_pool(pool_id, spec))

        return self._portal.call(update)

    def delete_pool(self, pool_id: str) -> None:
        """Remove a pool; `PoolNotFound`, and `PoolInUse` while it has active sandboxes."""
        self._portal.call(lambda here: here.manager.delete_pool(pool_id))

    def wait_pool_warm(self, pool_id: str, count: int | None = None) -> None:
        """Wait until `count` sandboxes (by default all of `warm_containers`) are ready.

        Raises `PoolNotFound`, and `PoolDegraded` if the pool cannot make any.
        """
        self._portal.call(lambda here: here.manager.wait_pool_warm(pool_id, count))

    # Sandboxes.

    def create(
        self,
        image: str | None = None,
        *,
        pool_id: str | None = None,
        cpus: float | None = None,
        memory_mb: int | None = None,
        ephemeral_disk_mb: int | None = None,
        disk_mb: int | None = None,
        timeout_secs: float | None = None,
        secret_names: Sequence[str] = (),
        entrypoint: Sequence[str] | None = None,
        network: Mapping[str, Any] | None = None,
        startup_timeout: float | None = None,
    ) -> BlockingSandbox:
        """Take a sandbox from a pool, or make one that belongs to none.

        From a pool, a warm sandbox is handed over at once; else one is made, or waited for while
        the pool is at its ceiling, in the order of arrival.

        Args:
            image: What to make it from, without a pool; None: `host`.
            pool_id: The pool to take it from, whose image, resources and timeout it has.
            cpus: Processors, without a pool; None: 1.
            memory_mb: Memory in MiB, without a pool; None: 512.
            ephemeral_disk_mb: Disk in MiB, without a pool; None: 1024.
            disk_mb: `ephemeral_disk_mb` by its other name.
            timeout_secs: Only 0 or None: a limit belongs to a pool.
            secret_names: Not supported; anything but none is refused.
            entrypoint: Not supported; anything but None is refused.
            network: Not supported; anything but None is refused.
            startup_timeout: Seconds to wait for the sandbox; None: without limit.

        Raises:
            PoolNotFound: There is no such pool.
            AcquireTimeout: There was no sandbox in time.
            InvalidSpec: A value is impossible, or is the pool's to say.
            Unsupported: Something is asked for that sandboxes do not have.
            SandpoolError: The sandbox could not be made, for the reason that the class names.
        """
        requests.refuse_unsupported(
            {"secret_names": secret_names, "entrypoint": entrypoint, "network": network}
        )
        disk = requests.disk(ephemeral_disk_mb, disk_mb)
        if pool_id is not None:
            requests.refuse_with_pool(
                {
                    "image": image,
                    "cpus": cpus,
                    "memory_mb": memory_mb,
                    "ephemeral_disk_mb": disk,
                    "timeout_secs": timeout_secs,
                }
            )
            return self.claim(pool_id, startup_timeout=startup_timeout)
        if timeout_secs:
            raise Unsupported("timeout_secs: only a pool limits the life of its sandboxes")
        if startup_timeout is not None and not startup_timeout >= 0:
            raise InvalidSpec(f"startup_timeout must be seconds, not {startup_timeout!r}")
        config = requests.lone_sandbox(image=image, cpus=cpus, memory_mb=memory_mb, disk_mb=disk)
        held = self._portal.call(
            lambda here: here.make(config, timeout=startup_timeout), undo=_delete
        )
        return BlockingSandbox(self._portal, held)

    def claim(self, pool_id: str, *, startup_timeout: float | None = None) -> BlockingSandbox:
        """Take a sandbox from a pool, as `create(pool_id=...)` does."""
        held = self._portal.call(
            lambda here: here.claim(pool_id, timeout=startup_timeout), undo=_delete
        )
        return BlockingSandbox(self._portal, held)

    def connect(self, sandbox_id: str) -> BlockingSandbox:
        """Return another handle of a sandbox that this client has created; `SandboxNotFound`.

        On a server it may be another client's, with the same key's namespace; it is not listed
        then, and lives on when this client is closed.
        """
        return BlockingSandbox(self._portal, self._portal.call(lambda here: here.find(sandbox_id)))

    def list(self) -> list[SandboxRecord]:
        """Describe the sandboxes that this client has created and that are not gone."""
        return self._portal.call(lambda here: here.list())

    def get(self, sandbox_id: str) -> SandboxRecord:
        """Describe one sandbox; `SandboxNotFound`, also once it has been deleted."""
        return self._portal.call(lambda here: here.get(sandbox_id))

    def delete(self, sandbox_id: str) -> None:
        """End a sandbox with everything in it; `SandboxNotFound`."""
        self._portal.call(lambda here: here.delete(sandbox_id))


def _manager_maker(
    config: SandboxManagerConfig | None,
    api_url: str | None,
    api_key: str | None,
    backends: Mapping[str, Callable[[], Backend]] | None,
    images: Mapping[str, str] | None,
) -> Callable[[], Manager]:
    """Return what makes the manager behind a client; `InvalidSpec`, `Unsupported`."""
    is_local = backends is not None or images is not None
    if api_url is not None and is_local:
        raise InvalidSpec("backends and images are a server's own to say; leave them out")
    named = config.base_url if config is not None else None
    url = api_url or named or settings.server_url()
    if is_local or not url:
        if api_key is not None:
            raise InvalidSpec("api_key is for a server; give its api_url, too")
        return lambda: LocalSandboxManager(config, backends=backends, images=images)
    # Made here, so that what is wrong with it is said here; it is used on the client's own loop.
    manager = HttpSandboxManager(config, base_url=url, api_key=api_key)
    return lambda: manager


async def _delete(here: Backing, held: Held) -> None:
    await here.delete(held.sandbox.id, missing_ok=True)
