"""Pools, from this dialect's words to the manager's and back: pure conversions."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from sandpool.client.records import NO_CEILING
from sandpool.dialects.tensorlake.models import (
    DEFAULT_DISK_MB,
    DEFAULT_MEMORY_MB,
    Network,
    PoolAnswer,
    PoolRequest,
    milliseconds,
)
from sandpool.dialects.tensorlake.record import Blueprint, resources_info
from sandpool.errors import InvalidSpec
from sandpool.manager.recipe import invalid
from sandpool.models import PoolInfo, PoolSpec, Value

LABEL = "tensorlake"
"""The label of a pool under which the manager keeps what it knows nothing of."""


class Addition(Value):
    """What a pool has in this dialect and its manager knows nothing of."""

    created_at: datetime
    updated_at: datetime
    entrypoint: tuple[str, ...] | None = None
    network: Network | None = None
    secret_names: tuple[str, ...] = ()

    def differs_in_containers(self, other: Addition) -> bool:
        """Whether containers of the one are no containers of the other."""
        return (self.entrypoint, self.network) != (other.entrypoint, other.network)


def addition_of(spec: PoolSpec, otherwise: datetime) -> Addition:
    """Return what a pool has beyond its manager's definition.

    One that was made through another interface has nothing, and `otherwise` for its age.
    """
    kept = spec.labels.get(LABEL)
    if kept is not None:
        try:
            return Addition.model_validate_json(kept)
        except ValidationError:
            pass  # somebody else's label
    return Addition(created_at=otherwise, updated_at=otherwise)


def new_spec(pool_id: str, wanted: PoolRequest, addition: Addition) -> PoolSpec:
    """Return the definition of a new pool; `InvalidSpec`."""
    cpus, memory_mb = wanted.resources.cpus, wanted.resources.memory_mb
    return _spec(
        {
            "name": pool_id,
            "cpus": 1.0 if cpus is None else cpus,
            "memory_mb": DEFAULT_MEMORY_MB if memory_mb is None else memory_mb,
            "disk_mb": DEFAULT_DISK_MB,
            "labels": {LABEL: addition.model_dump_json()},
        },
        wanted,
    )


def changed_spec(spec: PoolSpec, wanted: PoolRequest, addition: Addition) -> PoolSpec:
    """Return a pool's definition with another one put in its place; `InvalidSpec`.

    What is absent of the resources stays as it is.  What this dialect has no words for does, too.
    """
    fields = spec.model_dump()
    fields["labels"] = {**spec.labels, LABEL: addition.model_dump_json()}
    if wanted.resources.cpus is not None:
        fields["cpus"] = wanted.resources.cpus
    if wanted.resources.memory_mb is not None:
        fields["memory_mb"] = wanted.resources.memory_mb
    return _spec(fields, wanted)


def new_addition(wanted: PoolRequest, now: datetime) -> Addition:
    """Return what a new pool has beyond its manager's definition."""
    return Addition(
        created_at=now,
        updated_at=now,
        entrypoint=wanted.entrypoint or None,
        network=wanted.network,
        secret_names=wanted.secret_names or (),
    )


def changed_addition(old: Addition, wanted: PoolRequest, now: datetime) -> Addition:
    """Return what a pool has after a change: a network and secrets that are absent stay."""
    is_given = wanted.model_fields_set
    names = wanted.secret_names
    return Addition(
        created_at=old.created_at,
        updated_at=now,
        entrypoint=wanted.entrypoint or None,
        network=wanted.network if "network" in is_given else old.network,
        secret_names=old.secret_names if names is None else names,
    )


def check_secrets(names: Collection[str], known: Collection[str]) -> None:
    """Raise `InvalidSpec` for the first secret that the operator has not got."""
    for name in names:
        if name not in known:
            raise InvalidSpec(f"secret_names: there is no secret {name!r}")


def blueprint(spec: PoolSpec, addition: Addition) -> Blueprint:
    """Return what the sandboxes of a pool are made from."""
    return Blueprint(
        image=spec.image,
        resources=resources_info(cpus=spec.cpus, memory_mb=spec.memory_mb, disk_mb=spec.disk_mb),
        timeout_secs=round(spec.timeout_secs),
        entrypoint=addition.entrypoint,
        network=addition.network,
        secret_names=addition.secret_names,
    )


def pool_answer(namespace: str, info: PoolInfo, addition: Addition) -> PoolAnswer:
    """Describe a pool, without its containers."""
    plan = blueprint(info.spec, addition)
    return PoolAnswer(
        id=info.name,
        namespace=namespace,
        image=plan.image,
        resources=plan.resources,
        timeout_secs=plan.timeout_secs,
        entrypoint=plan.entrypoint,
        max_containers=None if info.spec.max == NO_CEILING else info.spec.max,
        warm_containers=info.spec.warm,
        network_policy=plan.network,
        secret_names=plan.secret_names,
        containers=None,
        created_at=milliseconds(addition.created_at),
        updated_at=milliseconds(addition.updated_at),
        state=info.state,
        last_error=info.last_error,
    )


def _spec(fields: dict[str, Any], wanted: PoolRequest) -> PoolSpec:
    fields |= {
        "image": wanted.image,
        "warm": wanted.warm_containers or 0,
        "max": NO_CEILING if wanted.max_containers is None else wanted.max_containers,
        "timeout_secs": wanted.timeout_secs,
    }
    if wanted.resources.disk is not None:
        fields["disk_mb"] = wanted.resources.disk
    try:
        return PoolSpec.model_validate(fields)
    except ValidationError as error:
        raise invalid("pool", error) from None
