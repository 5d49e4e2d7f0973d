"""What users' own tests need: sandboxes in memory and a clock that is moved by hand."""

from __future__ import annotations

from sandpool.testing.backend import FakeBackend
from sandpool.testing.box import FakeBox
from sandpool.testing.fake_factory import FakeFactory, FakeItem
from sandpool.testing.manual_clock import ManualClock

__all__ = [
    # Sandboxes in memory.
    "FakeBackend",
    "FakeBox",
    # Pools without sandboxes.
    "FakeFactory",
    "FakeItem",
    # Time.
    "ManualClock",
]
