"""What is asked of a server, and what it answers, as values: pure conversions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from sandpool.errors import RemoteError
from sandpool.manager.recipe import invalid, parse_config
from sandpool.models import ImageInfo, PoolInfo, SandboxConfig, SandboxReference, SandboxType

LONGEST_WAIT = 86_400.0
"""Seconds that one call may wait for a sandbox; a longer wait is taken for this one."""

Model = TypeVar("Model", bound=BaseModel)

POOLS: TypeAdapter[list[PoolInfo]] = TypeAdapter(list[PoolInfo])
REFERENCES: TypeAdapter[list[SandboxReference]] = TypeAdapter(list[SandboxReference])
IMAGES: TypeAdapter[list[ImageInfo]] = TypeAdapter(list[ImageInfo])
IDS: TypeAdapter[list[str]] = TypeAdapter(list[str])
TABLE: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])

Kind = TypeVar("Kind")


def body(kind: type[BaseModel], **fields: object) -> dict[str, Any]:
    """Return a request's body, its defaults left out; `InvalidSpec` names what is wrong with it."""
    try:
        checked = kind.model_validate(fields)
    except ValidationError as error:
        raise invalid(kind.__name__, error) from None
    return checked.model_dump(mode="json", exclude_defaults=True)


def wait(seconds: float | None) -> float | None:
    """Return a wait as it can be asked for."""
    return None if seconds is None else min(seconds, LONGEST_WAIT)


def config_fields(
    kind: SandboxType, config: SandboxConfig | Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return what a caller has said of a configuration; `InvalidSpec`.

    What was left to the defaults is left out: a configuration of one class stands for one of
    another type by what it says, and not by its own class's defaults.
    """
    return parse_config(kind, config).model_dump(mode="json", exclude_unset=True)


def parse(kind: type[Model], content: bytes | str) -> Model:
    """Return an answer as a value; `RemoteError` if it is none."""
    try:
        return kind.model_validate_json(content)
    except ValidationError:
        raise _not_understood(kind.__name__) from None


def parse_as(adapter: TypeAdapter[Kind], content: bytes | str) -> Kind:
    """Return an answer of several values; `RemoteError` if it is none."""
    try:
        return adapter.validate_json(content)
    except ValidationError:
        raise _not_understood("such answers") from None


def _not_understood(what: str) -> RemoteError:
    return RemoteError(
        f"this client cannot read the server's answer as {what}; is it a sandpool server, and as "
        "old as this client?"
    )
