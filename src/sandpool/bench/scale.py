"""`Scale`: how much is measured.  The same benchmarks in a minute or in a quarter of an hour."""

from __future__ import annotations

from sandpool.models import Value


class Scale(Value):
    """The settings of one run, the whole suite's by default."""

    seed: int = 7
    repeats: int = 3
    samples: int = 100
    """Latencies that are measured one after the other, in each repeat."""
    slow_samples: int = 20
    """The same of what takes a tenth of a second each."""
    cycles: int = 10_000
    """Claims and leases over HTTP whose number is what counts."""
    callers: int = 8
    """Callers at one time, where they call as fast as they are answered."""
    rates: tuple[tuple[float, float], ...] = (
        (1, 15),
        (10, 5),
        (50, 5),
        (100, 40),
        (200, 5),
        (300, 5),
    )
    """Arrivals a second, and for how many seconds in each repeat: more than 10,000 in all at
    the rate that p99.9 is wanted of."""
    highest_rate: float = 600
    """Where to stop raising the rate if nothing is saturated before."""
    output_rates: tuple[tuple[float, float], ...] = ((1, 15), (100, 6))
    """The same for calls that run a program."""
    sustained: float = 60
    """Seconds of fresh cycles without a break."""
    bursts: tuple[tuple[int, int], ...] = ((10, 8), (50, 8), (100, 32), (500, 128))
    """How many callers come at once, and the stock that they meet."""
    parked: tuple[int, ...] = (1, 50, 500, 2_000)
    """Sandboxes that wait, for density."""
    idle: float = 5
    """Seconds in which an idle pool's use of processors is watched."""
    fair: float = 6
    """Seconds of a flood by one tenant, in each repeat."""
    tax: float = 4
    """Seconds of good tenants beside each kind of bad ones, in each repeat."""
    model: float = 2
    """Seconds for each stock whose misses are predicted."""
    soak: float = 60
    """Seconds of a steady load, watched for drift."""
    served_idle: int = 500
    """Warm sandboxes of an idle server."""
    at_once: int = 40
    """Calls at one time on containers."""


FULL = Scale()

QUICK = Scale(
    repeats=1,
    samples=10,
    slow_samples=3,
    cycles=50,
    rates=((10, 0.4), (100, 0.4)),
    highest_rate=100,
    output_rates=((100, 0.3),),
    sustained=2,
    bursts=((10, 4), (30, 8)),
    parked=(1, 20),
    idle=0.3,
    fair=0.4,
    tax=0.4,
    model=0.4,
    soak=2,
    served_idle=20,
    at_once=8,
)
"""Whether everything runs, in a minute; its figures mean little."""
