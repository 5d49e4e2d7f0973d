"""`SandboxFactory`: from a sandbox type to a sandbox, without a manager."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from sandpool import config as settings
from sandpool.errors import InvalidSpec, UnknownSandboxType
from sandpool.manager.docker_sandbox import DockerNotebookSandbox, DockerSandbox
from sandpool.manager.local_sandbox import LocalSandbox
from sandpool.manager.recipe import parse_config, parse_type
from sandpool.manager.sandbox import Sandbox
from sandpool.models import SandboxConfig, SandboxType

SandboxClass = TypeVar("SandboxClass", bound=type[Sandbox])


_OURS: frozenset[type[Sandbox]] = frozenset((LocalSandbox, DockerSandbox, DockerNotebookSandbox))


class SandboxFactory:
    """Knows every class of sandboxes by its type.

    The register is one for the whole program, as the enclave interface has it.
    """

    _classes: ClassVar[dict[SandboxType, type[Sandbox]]] = {
        SandboxType.NATIVE: LocalSandbox,
        SandboxType.DOCKER: DockerSandbox,
        SandboxType.DOCKER_NOTEBOOK: DockerNotebookSandbox,
    }

    @classmethod
    def register_sandbox(
        cls, sandbox_type: SandboxType | str, sandbox_class: type[Sandbox]
    ) -> None:
        """Make a class known; a later one of the same type takes its place."""
        if not issubclass(sandbox_class, Sandbox):
            raise InvalidSpec("register_sandbox needs a type and a subclass of Sandbox")
        cls._classes[parse_type(sandbox_type)] = sandbox_class

    @classmethod
    def get_available_types(cls) -> list[SandboxType]:
        """Return the types that `create_sandbox` knows."""
        return list(cls._classes)

    @classmethod
    def has_class_of_others(cls, sandbox_type: SandboxType) -> bool:
        """Whether somebody has registered a class for this type that needs none of our backends.

        Ours bring a backend of their own, which is not for a manager that was given others.
        """
        found = cls._classes.get(sandbox_type)
        return found is not None and found not in _OURS

    @classmethod
    def create_sandbox(
        cls,
        sandbox_type: SandboxType | str,
        config: SandboxConfig | Mapping[str, Any] | None = None,
        sandbox_id: str | None = None,
    ) -> Sandbox:
        """Make a sandbox that is not started yet.

        Raises:
            UnknownSandboxType: No class is registered for this type.
            InvalidSpec: The configuration is malformed.
            ImageNotFound: No image has the name that it gives.
        """
        kind = parse_type(sandbox_type)
        found = cls._classes.get(kind)
        if found is None:
            known = ", ".join(known.value for known in cls._classes)
            raise UnknownSandboxType(
                f"Sandbox type {kind.value} is not registered (available: {known})"
            )
        parsed = parse_config(kind, config)
        if found is LocalSandbox:
            return LocalSandbox(parsed, sandbox_id, images=settings.images())
        return found(parsed, sandbox_id)


def register_sandbox(sandbox_type: SandboxType | str) -> Callable[[SandboxClass], SandboxClass]:
    """Register the decorated class of sandboxes for a type."""

    def register(sandbox_class: SandboxClass) -> SandboxClass:
        SandboxFactory.register_sandbox(sandbox_type, sandbox_class)
        return sandbox_class

    return register
