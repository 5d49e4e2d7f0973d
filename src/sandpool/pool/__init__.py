"""The generic pool: keeps items ready and lends them; knows nothing of sandboxes."""

from sandpool.pool.events import (
    Created,
    CreateFailed,
    Degraded,
    Destroyed,
    Ended,
    Event,
    Healed,
    Leased,
)
from sandpool.pool.factory import Factory
from sandpool.pool.lease import EndReason, Lease
from sandpool.pool.policy import Policy, Recycle
from sandpool.pool.pool import Pool
from sandpool.pool.stats import PoolState, Stats

__all__ = [
    "CreateFailed",
    "Created",
    "Degraded",
    "Destroyed",
    "EndReason",
    "Ended",
    "Event",
    "Factory",
    "Healed",
    "Lease",
    "Leased",
    "Policy",
    "Pool",
    "PoolState",
    "Recycle",
    "Stats",
]
