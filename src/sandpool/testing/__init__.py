"""What users' own tests need: sandboxes in memory, and time that is moved by hand or jumps."""

from __future__ import annotations

from sandpool.testing.backend import FakeBackend
from sandpool.testing.behaviour import Behaviour, Step, Time, exponential, fixed, lognormal
from sandpool.testing.box import FakeBox
from sandpool.testing.fake_factory import FakeFactory, FakeItem
from sandpool.testing.manual_clock import ManualClock
from sandpool.testing.simulated_backend import SimulatedBackend, SimulatedBox
from sandpool.testing.simulated_factory import SimulatedFactory, SimulatedItem
from sandpool.testing.virtual_clock import VirtualClock

__all__ = [  # noqa: RUF022 - grouped by what they are for
    # Sandboxes in memory.
    "FakeBackend",
    "FakeBox",
    # Pools without sandboxes.
    "FakeFactory",
    "FakeItem",
    # Both as slow and as fallible as a seed decides.
    "SimulatedBackend",
    "SimulatedBox",
    "SimulatedFactory",
    "SimulatedItem",
    "Behaviour",
    "Step",
    "Time",
    "exponential",
    "fixed",
    "lognormal",
    # Time.
    "ManualClock",
    "VirtualClock",
]
