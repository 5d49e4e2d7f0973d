"""`SandboxManagerFactory`: from a configuration to the manager that it asks for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from sandpool.errors import InvalidSpec
from sandpool.manager.local import LocalSandboxManager
from sandpool.models import SandboxManagerConfig, SandboxManagerType
from sandpool.service import SandboxService

ManagerClass = TypeVar("ManagerClass", bound=type[SandboxService])

# The client needs an HTTP library, so it is loaded when it is asked for.
_ELSEWHERE = {SandboxManagerType.HTTP: ("sandpool.client", "HttpSandboxManager")}


class SandboxManagerFactory:
    """Knows every class of managers by its type.

    The register is one for the whole program, as the enclave interface has it.
    """

    _classes: ClassVar[dict[SandboxManagerType, type[SandboxService]]] = {
        SandboxManagerType.LOCAL: LocalSandboxManager
    }

    @classmethod
    def register(
        cls, manager_type: SandboxManagerType | str, manager_class: type[SandboxService]
    ) -> None:
        """Make a class known; a later one of the same type takes its place."""
        if not isinstance(manager_class, type):
            raise InvalidSpec("register needs a type and a class of managers")
        cls._classes[_parse(manager_type)] = manager_class

    @classmethod
    def get_registered_types(cls) -> list[SandboxManagerType]:
        """Return the types that `create_manager` knows."""
        return [kind for kind in SandboxManagerType if kind in cls._classes or kind in _ELSEWHERE]

    @classmethod
    def create_manager(
        cls,
        manager_type: SandboxManagerType | str | None = None,
        config: SandboxManagerConfig | None = None,
        **kwargs: Any,
    ) -> SandboxService:
        """Make a manager; `kwargs` go to its class.

        Without a type it is an HTTP manager if the configuration or the keywords have a `base_url`,
        and a local one otherwise.  Raises `InvalidSpec` for a type that is not registered.
        """
        if manager_type is None:
            base_url = kwargs.get("base_url") or (config.base_url if config is not None else None)
            manager_type = SandboxManagerType.HTTP if base_url else SandboxManagerType.LOCAL
        return cls._find(_parse(manager_type))(config, **kwargs)

    @classmethod
    def _find(cls, manager_type: SandboxManagerType) -> Callable[..., SandboxService]:
        if manager_type in cls._classes:
            return cls._classes[manager_type]
        if manager_type not in _ELSEWHERE:
            raise _unknown(manager_type.value)
        module, name = _ELSEWHERE[manager_type]
        found: Callable[..., SandboxService] = getattr(importlib.import_module(module), name)
        return found


def _parse(manager_type: SandboxManagerType | str) -> SandboxManagerType:
    try:
        return SandboxManagerType(manager_type)
    except ValueError:
        raise _unknown(str(manager_type)) from None


def _unknown(name: str) -> InvalidSpec:
    known = ", ".join(kind.value for kind in SandboxManagerFactory.get_registered_types())
    return InvalidSpec(f"manager type {name!r} is not registered (available: {known})")


def register_manager(
    manager_type: SandboxManagerType | str,
) -> Callable[[ManagerClass], ManagerClass]:
    """Register the decorated class of managers for a type."""

    def register(manager_class: ManagerClass) -> ManagerClass:
        SandboxManagerFactory.register(manager_type, manager_class)
        return manager_class

    return register
