"""Which backends a manager has, by the type of sandbox that they make."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping

import anyio

from sandpool.backends.base import Backend
from sandpool.errors import BackendUnavailable, SandpoolError, UnknownSandboxType
from sandpool.models import ImagePull, SandboxType

_log = logging.getLogger(__name__)

BackendFactory = Callable[[], Backend]
"""Makes a backend; called at most once between a manager's start and its stop."""


def default_backend() -> Backend:
    """Return a new native backend; loaded here so that importing sandpool loads none."""
    try:
        module = importlib.import_module("sandpool.backends.native")
    except ImportError as error:
        raise BackendUnavailable(
            f"the native backend cannot be loaded: {error}; `sandpool doctor` says what is missing"
        ) from error
    backend: Backend = module.NativeBackend()
    return backend


def docker_backend() -> Backend:
    """Return a new Docker backend, for the engine that DOCKER_HOST names."""
    try:
        module = importlib.import_module("sandpool.backends.docker")
    except ImportError as error:
        raise BackendUnavailable(f"the Docker backend cannot be loaded: {error}") from error
    backend: Backend = module.DockerBackend()
    return backend


class Backends:
    """The backends of one manager, each made when it is first needed."""

    def __init__(self, factories: Mapping[str, BackendFactory] | None) -> None:
        """Know how to make them; by default the native one and Docker's."""
        if factories is None:
            factories = {
                SandboxType.NATIVE.value: default_backend,
                SandboxType.DOCKER.value: docker_backend,
                SandboxType.DOCKER_NOTEBOOK.value: docker_backend,
            }
        self._factories = {SandboxType(name): factory for name, factory in factories.items()}
        self._made: dict[SandboxType, Backend] = {}

    @property
    def types(self) -> list[SandboxType]:
        """The types that there are backends for."""
        return list(self._factories)

    def has(self, sandbox_type: SandboxType) -> bool:
        """Whether there is a backend for this type."""
        return sandbox_type in self._factories

    def get(self, sandbox_type: SandboxType) -> Backend:
        """Return the backend for this type; `UnknownSandboxType`, `BackendUnavailable`."""
        if sandbox_type not in self._made:
            factory = self._factories.get(sandbox_type)
            if factory is None:
                known = ", ".join(kind.value for kind in self._factories) or "none"
                raise UnknownSandboxType(
                    f"Sandbox type {sandbox_type.value} is not registered (available: {known})"
                )
            self._made[sandbox_type] = factory()
        return self._made[sandbox_type]

    def pulls(self) -> dict[str, ImagePull]:
        """Return how far the images are that they are getting, by name."""
        return {name: pull for made in self._made.values() for name, pull in made.pulls().items()}

    async def aclose(self) -> None:
        """Close those that were made; new ones are made when they are needed again.

        One that cannot be closed is logged, and holds up no other.
        """
        made, self._made = self._made, {}
        async with anyio.create_task_group() as group:
            for backend in made.values():
                group.start_soon(_close, backend)


async def _close(backend: Backend) -> None:
    try:
        await backend.aclose()
    except SandpoolError:
        _log.exception("a backend could not be closed")
