"""How much the tests measure: as little as there is."""

from __future__ import annotations

from sandpool.bench.scale import Scale

TINY = Scale(
    repeats=2,
    samples=5,
    slow_samples=2,
    cycles=20,
    callers=2,
    rates=((100, 0.1),),
    highest_rate=100,
    output_rates=((100, 0.1),),
    sustained=0.2,
    bursts=((4, 2),),
    parked=(1, 3),
    idle=0.05,
    fair=0.1,
    tax=0.1,
    model=0.1,
    soak=0.3,
    served_idle=3,
    at_once=3,
)
